#include "tokenizer/nfc.h"

#include <algorithm>
#include <vector>

#include "core/utf8.h"

namespace mha2mla::tokenizer {
namespace {

// Below this no code point changes or joins another.
constexpr char32_t first_affected = 0x300;

// Hangul syllables are numbered by lead consonant, vowel and (optional) tail consonant.
constexpr char32_t syllable_base = 0xac00;
constexpr char32_t lead_base = 0x1100;
constexpr char32_t vowel_base = 0x1161;
constexpr char32_t tail_base = 0x11a7;
constexpr char32_t leads = 19;
constexpr char32_t vowels = 21;
constexpr char32_t tails = 28;

/// Whether `value` is one of `count` from `base` on; smaller values wrap around.
constexpr bool is_in(char32_t value, char32_t base, char32_t count) { return value - base < count; }

unsigned char combining_class(char32_t c) {
    const auto ranges = nfc::mark_ranges();
    const auto range = std::partition_point(ranges.begin(), ranges.end(), [c](const auto& r) { return r.last < c; });
    return range != ranges.end() && range->first <= c ? range->combining_class : 0;
}

void append_decomposed(char32_t c, std::u32string& out) {
    if (is_in(c, syllable_base, leads * vowels * tails)) {
        const char32_t index = c - syllable_base;
        out += lead_base + index / (vowels * tails);
        out += vowel_base + index / tails % vowels;
        if (index % tails != 0) out += tail_base + index % tails;
        return;
    }
    const auto table = nfc::decompositions();
    const auto row = std::partition_point(table.begin(), table.end(), [c](const auto& r) { return r.composed < c; });
    if (row == table.end() || row->composed != c) {
        out += c;
        return;
    }
    append_decomposed(row->first, out);
    if (row->second != 0) append_decomposed(row->second, out);
}

/// Sorts each run of marks by class; marks of one class keep their order.
void reorder_marks(std::u32string& text) {
    const auto is_mark = [](char32_t c) { return combining_class(c) != 0; };
    for (auto run = text.begin(); run != text.end();) {
        run = std::find_if(run, text.end(), is_mark);
        const auto end = std::find_if_not(run, text.end(), is_mark);
        std::stable_sort(run, end, [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
        run = end;
    }
}

const std::vector<nfc::Decomposition>& joins_by_pair() {
    static const std::vector<nfc::Decomposition> sorted = [] {
        std::vector<nfc::Decomposition> pairs;
        for (const auto& row : nfc::decompositions()) {
            if (row.joins) pairs.push_back(row);
        }
        std::sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
            return std::pair(a.first, a.second) < std::pair(b.first, b.second);
        });
        return pairs;
    }();
    return sorted;
}

/// What the two become together; 0 where they stay two.
char32_t joined(char32_t first, char32_t second) {
    if (is_in(first, lead_base, leads) && is_in(second, vowel_base, vowels)) {
        return syllable_base + ((first - lead_base) * vowels + (second - vowel_base)) * tails;
    }
    const bool open_syllable =
        is_in(first, syllable_base, leads * vowels * tails) && (first - syllable_base) % tails == 0;
    if (open_syllable && is_in(second, tail_base + 1, tails - 1)) return first + (second - tail_base);
    const auto& table = joins_by_pair();
    const auto wanted = std::pair(first, second);
    const auto row = std::partition_point(table.begin(), table.end(),
                                          [&](const auto& r) { return std::pair(r.first, r.second) < wanted; });
    return row != table.end() && std::pair(row->first, row->second) == wanted ? row->composed : 0;
}

/// Joins each starter (class 0) with the characters behind it that nothing blocks.
void compose(std::u32string& text) {
    std::size_t starter = std::u32string::npos;
    std::size_t size = 0;
    int last_class = -1;  // of the last character kept behind the starter; -1 directly behind it
    for (const char32_t c : text) {
        const int own_class = combining_class(c);
        const bool reachable = starter != std::u32string::npos && last_class < own_class;
        const char32_t both = reachable ? joined(text[starter], c) : 0;
        if (both != 0) {
            text[starter] = both;
            continue;
        }
        if (own_class == 0) starter = size;
        last_class = own_class == 0 ? -1 : own_class;
        text[size++] = c;
    }
    text.resize(size);
}

}  // namespace

std::string to_nfc(std::string_view text) {
    std::u32string decomposed;
    bool affected = false;
    for (std::size_t at = 0; at < text.size();) {
        const auto step = core::read_utf8(text.substr(at));
        append_decomposed(step.value, decomposed);
        affected = affected || step.value >= first_affected;
        at += step.bytes;
    }
    if (!affected) return std::string(text);
    reorder_marks(decomposed);
    compose(decomposed);
    std::string result;
    for (const char32_t c : decomposed) core::append_utf8(c, result);
    return result;
}

}  // namespace mha2mla::tokenizer
