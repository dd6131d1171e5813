# SPDX-License-Identifier: MIT
#
# FUSEDVAE_CUDA_EMULATED: csrc/cuda as plain C++ over this folder's cuda_runtime.h, so that its correctness is tested on
# machines without a GPU (adds fusedvae_device). For tests only: it is thousands of times slower than one.
set(emulator_dir "${CMAKE_CURRENT_LIST_DIR}")
set(emulator_sources
    "${emulator_dir}/block.cpp"
    "${emulator_dir}/devices.cpp"
    "${emulator_dir}/errors.cpp"
    "${emulator_dir}/fiber.cpp"
    "${emulator_dir}/memory.cpp"
    "${emulator_dir}/settings.cpp"
    "${emulator_dir}/streams.cpp"
    "${emulator_dir}/work.cpp"
)

# Compiles the target's .cu files for the emulator, and the emulator with them.
function(emulate_cuda target)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${sources} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE CXX)
  target_sources(${target} PRIVATE ${emulator_sources})
  target_include_directories(${target} BEFORE PUBLIC "${emulator_dir}")
  # As nvcc, which says nothing of CUDA's pragmas.
  target_compile_options(${target} PRIVATE -Wno-unknown-pragmas)
endfunction()

file(GLOB cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/csrc/cuda/*.cu")
add_library(fusedvae_device OBJECT ${cuda_sources})
emulate_cuda(fusedvae_device)
