# SPDX-License-Identifier: MIT
#
# The one place with instruction-set flags. Every csrc/cpu/isa_*.cpp is one backend, compiled from the same kernel
# headers with the flags below; all other files keep the target's baseline, so that the library starts on any machine of
# the architecture and chooses at run time (csrc/backend/select.cpp).
#
# The linker may merge an inline function of two files with different flags, and the program then dies with an illegal
# instruction. Hence no exceptions, no RTTI and no link-time optimisation here, everything in unnamed namespaces, and
# the test isa_symbols (cmake/check_isa_symbols.cmake) that finds no weak symbol in the objects.
include(CheckSymbolExists)

# What the compiler says of its target, not what the host is: right for cross-compilers too, and the same macros that
# select.cpp asks.
check_symbol_exists(__x86_64__ "stddef.h" FUSEDVAE_X86_64)
check_symbol_exists(__aarch64__ "stddef.h" FUSEDVAE_AARCH64)

if(FUSEDVAE_X86_64)
  set(known_isas scalar avx2 avx512 avx512_bf16)
elseif(FUSEDVAE_AARCH64)
  set(known_isas scalar neon) # Advanced SIMD is part of the architecture's baseline
else()
  set(known_isas scalar)
endif()
set(FUSEDVAE_BACKENDS "${known_isas}" CACHE STRING "The backends to build, for one kind of processor fewer than all")
set(isas ${FUSEDVAE_BACKENDS})
foreach(isa IN LISTS isas)
  if(NOT isa IN_LIST known_isas)
    message(FATAL_ERROR "FUSEDVAE_BACKENDS holds '${isa}'; this target has ${known_isas}")
  endif()
endforeach()
if(NOT isas)
  message(FATAL_ERROR "FUSEDVAE_BACKENDS is empty; this target has ${known_isas}")
endif()
if(avx512_bf16 IN_LIST isas AND NOT avx512 IN_LIST isas)
  message(FATAL_ERROR "FUSEDVAE_BACKENDS holds avx512_bf16, which needs avx512 for all that stays float32")
endif()
if(NOT isas STREQUAL known_isas AND (FUSEDVAE_TESTS OR FUSEDVAE_BENCH))
  message(FATAL_ERROR "tests and benchmarks need every backend; leave FUSEDVAE_BACKENDS out")
endif()
set(isa_flags_avx2 -mavx2 -mfma -mf16c)
# Compilers prefer 256-bit vectors for their own loops by default; beside 512-bit kernels that only loses throughput.
set(isa_flags_avx512
    -mavx512f
    -mavx512bw
    -mavx512dq
    -mavx512vl
    -mfma
    -mf16c
    -mprefer-vector-width=512
)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # Its header's _mm512_undefined_ps() (GCC bug 105593).
  list(APPEND isa_flags_avx512 -Wno-uninitialized)
endif()
set(isa_flags_avx512_bf16 ${isa_flags_avx512} -mavx512bf16)

# An object library of those files PREFIX<isa>.cpp that there are, for each instruction set of the target: the backends,
# and what tests and benchmarks compile from the same headers.
function(add_isa_library name prefix)
  add_library(${name} OBJECT)
  foreach(isa IN LISTS isas)
    if(NOT EXISTS "${prefix}${isa}.cpp")
      continue()
    endif()
    target_sources(${name} PRIVATE "${prefix}${isa}.cpp")
    set_source_files_properties("${prefix}${isa}.cpp" PROPERTIES COMPILE_OPTIONS "${isa_flags_${isa}}")
  endforeach()
  target_compile_options(${name} PRIVATE -O3 -fno-exceptions -fno-rtti -fno-lto)
  # Nothing in a kernel reads errno or the exception flags: square roots become one instruction, selects are vectorised.
  target_compile_options(${name} PRIVATE -fno-math-errno -fno-trapping-math)
  target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}/csrc/include" "${PROJECT_SOURCE_DIR}/csrc")
endfunction()

add_isa_library(fusedvae_isa "${PROJECT_SOURCE_DIR}/csrc/cpu/isa_")

# What select.cpp chooses among.
foreach(isa IN LISTS isas)
  string(TOUPPER ${isa} upper)
  set_property(SOURCE csrc/backend/select.cpp APPEND PROPERTY COMPILE_DEFINITIONS FUSEDVAE_HAS_${upper})
endforeach()
list(JOIN isas "," joined)
set_property(SOURCE csrc/backend/select.cpp APPEND PROPERTY COMPILE_DEFINITIONS "FUSEDVAE_BACKENDS=\"${joined}\"")
