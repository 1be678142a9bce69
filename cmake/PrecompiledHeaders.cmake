# Precompiled headers: most of the time of a build went into parsing the same libraries again and again.
# mha2mla_precompile(target [TORCH]) gives a target one of two sets: for the runtime half, or the same with LibTorch.

if(MHA2MLA_TESTS)
  # GoogleTest's targets define it for their users; a precompiled header is only used where all see the same.
  add_compile_definitions(GTEST_HAS_PTHREAD=1)
endif()

function(mha2mla_header_set name)
  file(WRITE ${PROJECT_BINARY_DIR}/${name}.cpp "// Only carries the precompiled header.\n")
  add_library(${name} STATIC ${PROJECT_BINARY_DIR}/${name}.cpp)
  target_link_libraries(${name} PRIVATE fmt::fmt nlohmann_json::nlohmann_json mha2mla_warnings)
  target_precompile_headers(${name} PRIVATE <fmt/format.h> <nlohmann/json.hpp> <filesystem> <functional> <map>
    <memory> <optional> <span> <string> <string_view> <variant> <vector>)
  if(MHA2MLA_TESTS)
    target_link_libraries(${name} PRIVATE GTest::gtest GTest::gmock)
    target_precompile_headers(${name} PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
  endif()
endfunction()

mha2mla_header_set(mha2mla_headers)
if(MHA2MLA_WORKSHOP)
  mha2mla_header_set(mha2mla_torch_headers)
  target_link_libraries(mha2mla_torch_headers PRIVATE LibTorch::LibTorch)
  target_precompile_headers(mha2mla_torch_headers PRIVATE <torch/torch.h>)
endif()

function(mha2mla_precompile target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "")
  if(arg_TORCH)
    target_precompile_headers(${target} REUSE_FROM mha2mla_torch_headers)
  else()
    target_precompile_headers(${target} REUSE_FROM mha2mla_headers)
  endif()
endfunction()
