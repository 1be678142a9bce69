#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::eval {

/// ROUGE-L of a summary, 0 to 1: the F measure of the words that the sentences' longest common subsequences cover.
/// Sentences end at full stops; each word counts once (Lin 2004, section 3.2, as the PyPI package `rouge` 1.0.1 and so
/// LongBench compute it). 0 where either side has no sentence. Python gives up, and LongBench counts 0, where two
/// sentences have about a thousand words together; we do not. Throws Error for sentences beyond any answer's length.
double rouge_l(std::string_view prediction, std::string_view truth);

/// The same of text that was cut into words: they are joined by blanks first.
double rouge_l(const std::vector<std::string>& prediction, const std::vector<std::string>& truth);

}  // namespace mha2mla::eval
