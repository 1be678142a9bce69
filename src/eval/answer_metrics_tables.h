#pragma once

#include <span>

namespace mha2mla::eval {

/// Code points first to last.
struct CodeRange {
    char32_t first;
    char32_t last;
};

/// Every `step`-th code point of first to last has the lower case `code + delta`.
struct LowerRange {
    char32_t first;
    char32_t last;
    int step;
    int delta;
};

/// Ascending. Letters and numbers (Python's str.isalnum), decimal digits (re's \d), and what has a lower case.
std::span<const CodeRange> word_ranges();
std::span<const CodeRange> decimal_ranges();
std::span<const LowerRange> lower_ranges();

}  // namespace mha2mla::eval
