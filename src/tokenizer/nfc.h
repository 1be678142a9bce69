#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mha2mla::tokenizer {

/// Unicode normalization form C of valid UTF-8 text (Unicode Standard Annex 15).
std::string to_nfc(std::string_view text);

/// The tables behind it, made by tools/make_nfc_tables.py.
namespace nfc {

/// A code point and what it is made of: two, or one and 0.
struct Decomposition {
    char32_t composed;
    char32_t first;
    char32_t second;
    bool joins;  ///< whether form C puts the two together again
};

/// Code points first..last of one canonical combining class, which orders the marks behind a letter.
struct MarkRange {
    char32_t first;
    char32_t last;
    unsigned char combining_class;
};

/// Sorted by `composed`. Hangul syllables, which follow a formula, are not among them.
std::span<const Decomposition> decompositions();
/// Sorted. Code points outside have class 0.
std::span<const MarkRange> mark_ranges();

}  // namespace nfc
}  // namespace mha2mla::tokenizer
