# SPDX-License-Identifier: MIT
#
# Windows and macOS from Linux, with the compiler and C libraries that PyPI's `ziglang` brings:
#
#     cmake -S . -B build-windows -DCMAKE_TOOLCHAIN_FILE=cmake/toolchains/zig.cmake -DZIG_TARGET=x86_64-windows-gnu
#
# ZIG_TARGET: x86_64-windows-gnu, x86_64-macos, aarch64-macos. What comes out has not been run there yet.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG_TARGET)
if(ZIG_TARGET MATCHES "windows")
  set(CMAKE_SYSTEM_NAME Windows)
elseif(ZIG_TARGET MATCHES "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
else()
  message(FATAL_ERROR "ZIG_TARGET is '${ZIG_TARGET}'; it must name Windows or macOS, such as x86_64-windows-gnu")
endif()
string(REGEX REPLACE "-.*" "" CMAKE_SYSTEM_PROCESSOR "${ZIG_TARGET}")

find_program(PYTHON NAMES python3 python REQUIRED)
set(CMAKE_C_COMPILER
    "${PYTHON}"
    -m
    ziglang
    cc
    -target
    ${ZIG_TARGET}
)
set(CMAKE_CXX_COMPILER
    "${PYTHON}"
    -m
    ziglang
    c++
    -target
    ${ZIG_TARGET}
)
