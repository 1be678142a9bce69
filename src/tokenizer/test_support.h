#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/file.h"
#include "core/json.h"

namespace mha2mla::tokenizer {

/// A file of tests/fixtures/tokenizer.
inline core::Json fixture(const std::string& name) {
    const auto path = std::filesystem::path(MHA2MLA_FIXTURES) / "tokenizer" / name;
    return core::parse_json(core::read_text(path), path.string());
}

/// Where the real data lies that some tests need; it may be absent.
inline std::filesystem::path data_folder() {
    const char* path = std::getenv("MHA2MLA_DATA");
    return path != nullptr ? path : MHA2MLA_SHARED_DATA;
}

inline std::string data_file(const std::string& name) { return core::read_text(data_folder() / name); }

}  // namespace mha2mla::tokenizer
