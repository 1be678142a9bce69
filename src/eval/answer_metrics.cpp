#include "eval/answer_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "eval/answer_metrics_text.h"
#include "eval/sequence_matcher.h"

namespace mha2mla::eval {
namespace {

using Words = std::vector<std::u32string>;

constexpr std::u32string_view chinese_punctuation =
    U"！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞"
    U"〟〰〾〿–—‘’‛“”„‟…‧﹏.";

double f1(const Words& prediction, const Words& truth) {
    std::map<std::u32string_view, int> unmatched;
    for (const auto& word : truth) ++unmatched[word];
    int same = 0;
    for (const auto& word : prediction) {
        const auto found = unmatched.find(word);
        if (found != unmatched.end() && found->second-- > 0) ++same;
    }
    if (same == 0) return 0;
    const double precision = 1.0 * same / static_cast<double>(prediction.size());
    const double recall = 1.0 * same / static_cast<double>(truth.size());
    return (2 * precision * recall) / (precision + recall);
}

/// An article is a run of word characters, but of the text without punctuation: "a." and "a" are the same.
Words answer_words(std::string_view text) {
    auto codes = lower_case(to_code_points(text));
    std::erase_if(codes, is_ascii_punctuation);
    for (std::size_t i = 0; i < codes.size();) {
        const std::size_t begin = i;
        while (i < codes.size() && is_word(codes[i])) ++i;
        const auto run = std::u32string_view(codes).substr(begin, i - begin);
        if (run == U"a" || run == U"an" || run == U"the")
            std::fill_n(codes.begin() + std::ptrdiff_t(begin), i - begin, U' ');
        if (i == begin) ++i;
    }
    return split_words(codes);
}

Words answer_words_zh(const std::vector<std::string>& cut) {
    Words words;
    for (const auto& piece : cut) {
        auto word = lower_case(to_code_points(piece));
        std::erase_if(word, [](char32_t code) {
            return is_ascii_punctuation(code) || is_space(code) ||
                   chinese_punctuation.find(code) != std::u32string_view::npos;
        });
        if (!word.empty()) words.push_back(std::move(word));
    }
    return words;
}

/// The runs of digits.
Words numbers_of(std::u32string_view text) {
    Words numbers;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t begin = i;
        while (i < text.size() && is_decimal(text[i])) ++i;
        if (i > begin) numbers.emplace_back(text.substr(begin, i - begin));
        if (i == begin) ++i;
    }
    return numbers;
}

double share_of(std::string_view prediction, std::u32string_view number) {
    const auto numbers = numbers_of(to_code_points(prediction));
    if (numbers.empty()) return 0;
    const auto right = std::count(numbers.begin(), numbers.end(), number);
    return static_cast<double>(right) / static_cast<double>(numbers.size());
}

/// The number right behind the first `label` that has one.
std::u32string labelled_number(std::string_view truth, std::string_view label) {
    const auto text = to_code_points(truth), words = to_code_points(label);
    for (std::size_t at = text.find(words); at != std::u32string::npos; at = text.find(words, at + 1)) {
        const std::size_t begin = at + words.size();
        if (begin < text.size() && is_decimal(text[begin]))
            return numbers_of(std::u32string_view(text).substr(begin))[0];
    }
    throw core::Error({.what = "the answer names no paragraph",
                       .expected = std::string(label) + "and a number",
                       .got = std::string(truth)});
}

std::string_view code_line(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const auto line = text.substr(begin, end - begin);
        const bool is_remark =
            line.find_first_of("`#") != std::string_view::npos || line.find("//") != std::string_view::npos;
        if (!is_remark) return line;
        begin = end + 1;
    }
    return {};
}

/// In hundredths, halves rounded to even.
double fuzzy_ratio(std::string_view a, std::string_view b) {
    if (a == b) return 100;
    if (a.empty() || b.empty()) return 0;
    return std::nearbyint(100 * sequence_ratio(to_code_points(a), to_code_points(b)));
}

}  // namespace

double token_f1(std::string_view prediction, std::string_view truth) {
    return f1(answer_words(prediction), answer_words(truth));
}

double token_f1_zh(const std::vector<std::string>& prediction, const std::vector<std::string>& truth) {
    return f1(answer_words_zh(prediction), answer_words_zh(truth));
}

double classification_score(std::string_view prediction, std::string_view truth, std::span<const std::string> classes) {
    std::vector<std::string_view> named;
    for (const auto& name : classes) {
        if (prediction.find(name) != std::string_view::npos) named.push_back(name);
    }
    for (std::size_t i = 0; i < named.size(); ++i) {
        const auto name = named[i];
        // The next one moves to i and is passed over, as where Python removes from the list that it walks.
        if (name != truth && truth.find(name) != std::string_view::npos) {
            named.erase(std::find(named.begin(), named.end(), name));
        }
    }
    const bool is_named = std::find(named.begin(), named.end(), truth) != named.end();
    return is_named ? 1.0 / static_cast<double>(named.size()) : 0.0;
}

double count_score(std::string_view prediction, std::string_view truth) {
    return share_of(prediction, to_code_points(truth));
}

double retrieval_score(std::string_view prediction, std::string_view truth, std::string_view label) {
    return share_of(prediction, labelled_number(truth, label));
}

double code_similarity(std::string_view prediction, std::string_view truth) {
    return fuzzy_ratio(code_line(prediction), truth) / 100;
}

std::string_view first_line(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    return text.substr(0, text.find('\n'));
}

}  // namespace mha2mla::eval
