#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::eval {

/// Two sentences of so many are compared in 1 GiB of memory.
constexpr std::size_t most_sentence_words = 1 << 14;

/// Words of a text's longest sentence.
std::size_t longest_sentence(std::string_view text);

/// ROUGE-L of a summary, 0 to 1: the F measure of the words that the sentences' longest common subsequences cover.
/// Sentences end at full stops; each word counts once (Lin 2004, section 3.2, as the PyPI package `rouge` 1.0.1 and so
/// LongBench compute it). 0 where either side has no sentence, or one of more than `most_sentence_words`. Python gives
/// up, and LongBench counts 0, where two sentences have about a thousand words together; we do not.
double rouge_l(std::string_view prediction, std::string_view truth);

/// The same of text that was cut into words: they are joined by blanks first.
double rouge_l(const std::vector<std::string>& prediction, const std::vector<std::string>& truth);

}  // namespace mha2mla::eval
