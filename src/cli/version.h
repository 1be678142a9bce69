#pragma once

#include <string>

namespace mha2mla::cli {

/// "mha2mla 0.1.0 (commit 1a2b3c4, avx512, with the workshop)"
std::string version_text();
/// "0.1.0 (1a2b3c4)"
std::string version();

}  // namespace mha2mla::cli
