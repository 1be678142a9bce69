# Libraries from the system's packages (the list that ./dev installs).

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)

pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
add_library(PCRE2::PCRE2 ALIAS PkgConfig::PCRE2)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
add_library(Sentencepiece::Sentencepiece ALIAS PkgConfig::SENTENCEPIECE)

if(MHA2MLA_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
