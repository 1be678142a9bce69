# mha2mla_folder(<name> [TORCH] [FOLDERS a b ...] [LIBRARIES x y ...])
#
# One folder of src/ as a static library. Sources, tests (*_test.cpp) and fuzzers (*_fuzz.cpp) are found by pattern.
# A folder sees its own headers and those of the folders it names: each folder is reachable only through an include
# directory of its own (build/include/<name>/<name> -> src/<name>), so an include against the arrows does not compile.
# Files named *_avx2.cpp, *_avx512.cpp and *_amx.cpp are compiled for that instruction set; those named *_loops.cpp without
# regard for floating-point exceptions, which keep the compiler from making vectors of a loop with a choice in it.

function(mha2mla_isa_flags directory)
  file(GLOB_RECURSE avx2 CONFIGURE_DEPENDS ${directory}/*_avx2.cpp)
  file(GLOB_RECURSE avx512 CONFIGURE_DEPENDS ${directory}/*_avx512.cpp)
  file(GLOB_RECURSE amx CONFIGURE_DEPENDS ${directory}/*_amx.cpp)
  set_source_files_properties(${avx2} ${avx512} ${amx} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(${avx512} ${amx} PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512bf16;-mavx512vnni;-mfma;-mf16c;-mprefer-vector-width=512")
  set_property(SOURCE ${amx} APPEND PROPERTY COMPILE_OPTIONS -mamx-tile -mamx-bf16 -mamx-int8)
  # GCC 12 takes the undefined vectors in its own AVX-512 header for a mistake.
  set_property(SOURCE ${avx512} ${amx} APPEND PROPERTY COMPILE_OPTIONS
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
endfunction()

function(mha2mla_loop_flags directory)
  file(GLOB_RECURSE loops CONFIGURE_DEPENDS ${directory}/*_loops.cpp)
  set_source_files_properties(${loops} PROPERTIES COMPILE_OPTIONS -fno-trapping-math)
endfunction()

function(mha2mla_folder_tests name)
  file(GLOB_RECURSE tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_test.cpp)
  if(NOT MHA2MLA_TESTS OR NOT tests)
    return()
  endif()
  add_executable(${name}_test ${tests})
  target_link_libraries(${name}_test PRIVATE mha2mla_${name} GTest::gtest_main GTest::gmock mha2mla_warnings)
  target_compile_definitions(${name}_test PRIVATE MHA2MLA_FIXTURES="${PROJECT_SOURCE_DIR}/tests/fixtures"
    MHA2MLA_SHARED_DATA="${PROJECT_SOURCE_DIR}/../shared/data")
  mha2mla_precompile(${name}_test ${ARGN})
  gtest_discover_tests(${name}_test TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 900)
endfunction()

function(mha2mla_folder_fuzzers name)
  file(GLOB_RECURSE fuzzers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_fuzz.cpp)
  if(NOT MHA2MLA_FUZZ)
    return()
  endif()
  foreach(fuzzer IN LISTS fuzzers)
    get_filename_component(target ${fuzzer} NAME_WE)
    add_executable(${target} ${fuzzer})
    target_link_libraries(${target} PRIVATE mha2mla_${name} mha2mla_warnings)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  endforeach()
endfunction()

function(mha2mla_folder name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "FOLDERS;LIBRARIES")
  set(directory ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/${name})
  file(CREATE_LINK ${directory} ${PROJECT_BINARY_DIR}/include/${name}/${name} SYMBOLIC)

  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${directory}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz)\\.cpp$")
  mha2mla_isa_flags(${directory})
  mha2mla_loop_flags(${directory})

  add_library(mha2mla_${name} STATIC ${sources})
  set_target_properties(mha2mla_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(mha2mla_${name} PUBLIC ${PROJECT_BINARY_DIR}/include/${name})
  list(TRANSFORM arg_FOLDERS PREPEND mha2mla_)
  target_link_libraries(mha2mla_${name} PUBLIC ${arg_FOLDERS} ${arg_LIBRARIES} PRIVATE mha2mla_warnings)
  if(arg_TORCH)
    target_link_libraries(mha2mla_${name} PUBLIC LibTorch::LibTorch)
    set(half TORCH)
  endif()
  mha2mla_precompile(mha2mla_${name} ${half})
  mha2mla_folder_tests(${name} ${half})
  mha2mla_folder_fuzzers(${name})
endfunction()
