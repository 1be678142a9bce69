# C++20, warnings as errors, sanitizers.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# For libraries and programs alike, so that they can share precompiled headers.
add_compile_options(-fPIC)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

add_library(mha2mla_warnings INTERFACE)
target_compile_options(mha2mla_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports false positives of these two in optimized standard library code.
  target_compile_options(mha2mla_warnings INTERFACE -Wno-error=stringop-overflow -Wno-error=restrict)
endif()

if(MHA2MLA_SANITIZE)
  add_compile_definitions(MHA2MLA_SANITIZED)
  add_compile_options(-fsanitize=${MHA2MLA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${MHA2MLA_SANITIZE})
endif()
if(MHA2MLA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()
