# SPDX-License-Identifier: MIT
#
# Test: a library exports every function that the C API declares, and nothing else; a static one (OPTIONS -g) has
# the C++ library's templates beside them, which are weak.
#
#     cmake -DNM=nm -DOPTIONS=-D -DLIBRARY=libfusedvae.so -DHEADER=fusedvae.h -P check_exports.cmake
execute_process(
  COMMAND "${NM}" ${OPTIONS} -P --defined-only "${LIBRARY}" OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY
)
string(REGEX MATCHALL "[^\n]+ [^\n]+\n" lines "${table}")
list(FILTER lines EXCLUDE REGEX "^[^ ]+ [WVwv] ")
set(exported "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "[ @].*" "" name "${line}")
  list(APPEND exported "${name}")
endforeach()

file(READ "${HEADER}" text)
string(REGEX MATCHALL "FVAE_API [a-zA-Z0-9_ *]*[ *]fvae_[a-z0-9_]+\\(" declarations "${text}")
set(declared "")
foreach(declaration IN LISTS declarations)
  string(REGEX REPLACE ".*[ *](fvae_[a-z0-9_]+)\\($" "\\1" name "${declaration}")
  list(APPEND declared "${name}")
endforeach()
if(NOT declared)
  message(FATAL_ERROR "found no declaration in ${HEADER}")
endif()

set(missing ${declared})
list(REMOVE_ITEM missing ${exported})
set(surplus ${exported})
list(REMOVE_ITEM surplus ${declared})
if(missing)
  message(SEND_ERROR "declared, but not exported: ${missing}")
endif()
if(surplus)
  message(SEND_ERROR "exported, but not part of the C API: ${surplus}")
endif()
