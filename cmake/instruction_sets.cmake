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

set(isa_sources csrc/cpu/isa_scalar.cpp)
if(FUSEDVAE_X86_64)
  list(APPEND isa_sources csrc/cpu/isa_avx2.cpp csrc/cpu/isa_avx512.cpp csrc/cpu/isa_avx512_bf16.cpp)
  set(avx2_flags -mavx2 -mfma -mf16c)
  set_source_files_properties(csrc/cpu/isa_avx2.cpp PROPERTIES COMPILE_OPTIONS "${avx2_flags}")
  # Compilers prefer 256-bit vectors for their own loops by default; beside 512-bit kernels that only loses throughput.
  set(avx512_flags
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
    list(APPEND avx512_flags -Wno-uninitialized)
  endif()
  set_source_files_properties(csrc/cpu/isa_avx512.cpp PROPERTIES COMPILE_OPTIONS "${avx512_flags}")
  set_source_files_properties(
    csrc/cpu/isa_avx512_bf16.cpp PROPERTIES COMPILE_OPTIONS "${avx512_flags};-mavx512bf16"
  )
elseif(FUSEDVAE_AARCH64)
  list(APPEND isa_sources csrc/cpu/isa_neon.cpp) # Advanced SIMD is part of the architecture's baseline
endif()

add_library(fusedvae_isa OBJECT ${isa_sources})
target_compile_options(fusedvae_isa PRIVATE -O3 -fno-exceptions -fno-rtti -fno-lto)
# Nothing in a kernel reads errno or the exception flags: square roots become one instruction, selects are vectorised.
target_compile_options(fusedvae_isa PRIVATE -fno-math-errno -fno-trapping-math)
