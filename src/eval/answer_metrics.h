#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::eval {

// How well a prediction answers, 0 to 1, as the metrics.py of LongBench v1 (Bai et al., arXiv 2308.14508, table 1)
// computes it, with what it takes from the PyPI packages rouge 1.0.1 (rouge.h) and fuzzywuzzy 0.18 without
// python-Levenshtein.

/// F1 of the words, which are compared without case, ASCII punctuation and articles.
double token_f1(std::string_view prediction, std::string_view truth);

/// F1 of the words that jieba cut, without case, white space, Western and Chinese punctuation.
double token_f1_zh(const std::vector<std::string>& prediction, const std::vector<std::string>& truth);

/// One over the number of classes that the prediction names, if the true one is among them. Classes whose names are
/// parts of the true one's do not count, but for each one that follows another such: the published loop skips it.
double classification_score(std::string_view prediction, std::string_view truth, std::span<const std::string> classes);

/// The share of the numbers in the prediction that are the true one.
double count_score(std::string_view prediction, std::string_view truth);

/// The same where the truth has a number behind `label`: "Paragraph " or "段落". Throws Error where it has none.
double retrieval_score(std::string_view prediction, std::string_view truth, std::string_view label);

/// How alike the prediction's first line without `, # and // is to the true line, in hundredths (fuzz.ratio).
double code_similarity(std::string_view prediction, std::string_view truth);

/// The first line of a text, behind the empty ones.
std::string_view first_line(std::string_view text);

}  // namespace mha2mla::eval
