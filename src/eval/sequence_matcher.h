#pragma once

#include <string_view>

namespace mha2mla::eval {

/// How alike two texts are, 0 to 1: twice the characters in matching blocks over all characters. The longest block is
/// found first, then those on either side of it (Ratcliff and Obershelp 1988), as Python's difflib.SequenceMatcher
/// does it; as there, characters that are frequent in a `b` of 200 or more begin no block. 1 for two empty texts.
double sequence_ratio(std::u32string_view a, std::u32string_view b);

}  // namespace mha2mla::eval
