# SPDX-License-Identifier: MIT
#
# Test: an instruction-set object defines exactly one global symbol (its backend table) and no weak one, because a weak
# one may be merged with another file's copy that was compiled for another machine.
#
#     cmake -DNM=nm -DOBJECTS="a.o;b.o" -P check_isa_symbols.cmake
if(NOT OBJECTS)
  message(FATAL_ERROR "no objects to check")
endif()
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND "${NM}" -P "${object}" OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY)
  # Lines are "name type [value size]"; lower case is local, U undefined, W V w v weak, u merged by name in the process.
  string(REGEX MATCHALL "[^\n]+ [WVwvu]( [^\n]*)?\n" weak "${table}")
  string(REGEX MATCHALL "[^\n]+ [ABCDGRST]( [^\n]*)?\n" global "${table}")
  list(LENGTH global count)
  get_filename_component(name "${object}" NAME)
  if(weak)
    message(SEND_ERROR "${name} has symbols that the linker may merge:\n${weak}")
  elseif(NOT count EQUAL 1)
    message(SEND_ERROR "${name} defines ${count} global symbols, it must define its backend table alone:\n${global}")
  else()
    message(STATUS "${name}: ${global}")
  endif()
endforeach()
