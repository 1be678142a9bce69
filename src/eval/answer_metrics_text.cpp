#include "eval/answer_metrics_text.h"

#include <algorithm>

#include "core/utf8.h"
#include "eval/answer_metrics_tables.h"

namespace mha2mla::eval {
namespace {

/// The range that could hold `code`: the last one that begins at or before it.
template <typename Range>
const Range* range_of(std::span<const Range> ranges, char32_t code) {
    const auto after = std::upper_bound(ranges.begin(), ranges.end(), code,
                                        [](char32_t value, const Range& range) { return value < range.first; });
    if (after == ranges.begin() || code > std::prev(after)->last) return nullptr;
    return &*std::prev(after);
}

bool is_letter(char32_t code) { return is_word(code) && !is_decimal(code) && code != U'_'; }

/// What may stand between a sigma and the letters that decide its form: apostrophes, full stops, accents.
bool is_case_ignorable(char32_t code) {
    return std::u32string_view(U"'.:^`\u00a8\u00ad\u00b7\u2019").find(code) != std::u32string_view::npos ||
           (code >= 0x300 && code <= 0x36f);
}

/// Unicode's Final_Sigma: a letter before it and none behind.
bool is_final(std::u32string_view text, std::size_t sigma) {
    std::size_t before = sigma;
    while (before > 0 && is_case_ignorable(text[before - 1])) --before;
    std::size_t after = sigma + 1;
    while (after < text.size() && is_case_ignorable(text[after])) ++after;
    return before > 0 && is_letter(text[before - 1]) && !(after < text.size() && is_letter(text[after]));
}

char32_t lower_case(char32_t code) {
    const LowerRange* range = range_of(lower_ranges(), code);
    if (range == nullptr || (code - range->first) % static_cast<char32_t>(range->step) != 0) return code;
    return static_cast<char32_t>(static_cast<int>(code) + range->delta);
}

}  // namespace

std::u32string to_code_points(std::string_view utf8) {
    std::u32string codes;
    codes.reserve(utf8.size());
    while (!utf8.empty()) {
        const auto step = core::read_utf8(utf8);
        codes.push_back(step.value);
        utf8.remove_prefix(step.bytes);
    }
    return codes;
}

std::string to_utf8(std::u32string_view code_points) {
    std::string text;
    for (const char32_t code : code_points) core::append_utf8(code, text);
    return text;
}

bool is_space(char32_t code) {
    return (code >= 0x9 && code <= 0xd) || (code >= 0x1c && code <= 0x20) || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
           code == 0x205f || code == 0x3000;
}

bool is_word(char32_t code) { return code == U'_' || range_of(word_ranges(), code) != nullptr; }

bool is_decimal(char32_t code) { return range_of(decimal_ranges(), code) != nullptr; }

bool is_ascii_punctuation(char32_t code) { return code > 0x20 && code < 0x7f && (code == U'_' || !is_word(code)); }

std::u32string lower_case(std::u32string_view text) {
    constexpr char32_t capital_sigma = 0x3a3, final_sigma = 0x3c2, dotted_capital_i = 0x130;
    std::u32string lower;
    lower.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == dotted_capital_i) {
            lower += U"i\u0307";
        } else if (text[i] == capital_sigma && is_final(text, i)) {
            lower += final_sigma;
        } else {
            lower += lower_case(text[i]);
        }
    }
    return lower;
}

std::vector<std::u32string> split_words(std::u32string_view text) {
    std::vector<std::u32string> words;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t begin = i;
        while (i < text.size() && !is_space(text[i])) ++i;
        if (i > begin) words.emplace_back(text.substr(begin, i - begin));
        if (i < text.size()) ++i;
    }
    return words;
}

}  // namespace mha2mla::eval
