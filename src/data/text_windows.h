#pragma once

#include <string>
#include <vector>

namespace mha2mla::data {

/// Windows of tokens, and a word on where they came from.
struct TextWindows {
    std::vector<std::vector<int>> windows;
    std::string origin;                           ///< "sampled from the source model, seed 0" or file names
    std::vector<std::vector<int>> held_out = {};  ///< to judge by: nothing is measured on them or learned from them
};

}  // namespace mha2mla::data
