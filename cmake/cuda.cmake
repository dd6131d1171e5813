# SPDX-License-Identifier: MIT
#
# The one place with CUDA's flags. csrc/cuda and csrc/no_cuda define the same symbols (csrc/backend/device.h); which of
# them the library holds is chosen here and nowhere else. The CUDA runtime is linked in, so that a program needs nothing
# but the driver; without one the library works, and says so where a GPU is asked for.
if(FUSEDVAE_CUDA_EMULATED)
  include("${PROJECT_SOURCE_DIR}/tests/cuda/emulator/emulator.cmake")
elseif(NOT FUSEDVAE_CUDA)
  add_library(fusedvae_device OBJECT "${PROJECT_SOURCE_DIR}/csrc/no_cuda/device.cpp")
else()
  # Machine code for Ampere and Hopper; later GPUs compile the PTX when the library is first used.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

  file(GLOB cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/csrc/cuda/*.cu")
  add_library(fusedvae_device OBJECT ${cuda_sources})
  # As on the CPU, a * b + c is contracted only where the code says fma.
  target_compile_options(fusedvae_device PRIVATE --fmad=false "-Xcompiler=-ffp-contract=off,-Wall")
  set(device_libraries CUDA::cudart_static)
  target_link_libraries(fusedvae_device INTERFACE ${device_libraries})
endif()
target_include_directories(fusedvae_device PUBLIC "${PROJECT_SOURCE_DIR}/csrc/include" "${PROJECT_SOURCE_DIR}/csrc")
