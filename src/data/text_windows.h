#pragma once

#include <string>
#include <vector>

#include "core/json.h"

namespace mha2mla::data {

/// Windows of tokens, and a word on where they came from.
struct TextWindows {
    std::vector<std::vector<int>> windows;
    std::string origin;                           ///< "sampled from the source model, seed 0" or file names
    std::vector<std::vector<int>> held_out = {};  ///< to judge by: nothing is measured on them or learned from them
};

/// The windows under a field of a JSON document, as a writer puts them there. Throws Error naming document and field
/// where they are anything else, or hold a token that a vocabulary of `vocab_size` does not have.
std::vector<std::vector<int>> read_windows(const core::JsonObject& document, const char* field, int vocab_size);

}  // namespace mha2mla::data
