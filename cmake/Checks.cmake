# The format, layer and size checks as CTest tests with the label `check` (./dev lint runs them, ./dev test does not),
# and the tests of the checks themselves.

find_package(Python3 3.9 COMPONENTS Interpreter)
if(NOT Python3_FOUND)
  message(STATUS "No Python: the format, layer and size checks are left out")
  return()
endif()

foreach(check format layers layers_test sizes sizes_test)
  add_test(NAME check.${check} COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_${check}.py)
  set_tests_properties(check.${check} PROPERTIES LABELS check)
endforeach()
