#include "eval/rouge.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "eval/answer_metrics_text.h"

namespace mha2mla::eval {
namespace {

using Words = std::vector<int>;  // by their number in a Vocabulary
using Vocabulary = std::map<std::u32string, int>;

Words words_of(std::u32string_view sentence, Vocabulary& vocabulary) {
    auto words = split_words(sentence);
    if (words.empty()) words.emplace_back();  // Python's "".split(" ") is one empty word
    Words numbers;
    for (auto& word : words) {
        numbers.push_back(vocabulary.emplace(std::move(word), static_cast<int>(vocabulary.size())).first->second);
    }
    return numbers;
}

std::vector<Words> sentences_of(std::string_view text, Vocabulary& vocabulary) {
    const auto codes = to_code_points(text);
    std::vector<Words> sentences;
    for (std::size_t begin = 0; begin < codes.size();) {
        const std::size_t end = std::min(codes.find(U'.', begin), codes.size());
        if (end > begin)
            sentences.push_back(words_of(std::u32string_view(codes).substr(begin, end - begin), vocabulary));
        begin = end + 1;
    }
    return sentences;
}

/// lengths[i][j]: of the longest common subsequence of the first i words of x and the first j of y.
class CommonLengths {
public:
    CommonLengths(std::span<const int> x, std::span<const int> y) : columns_(y.size() + 1) {
        lengths_.resize((x.size() + 1) * columns_);
        for (std::size_t i = 1; i <= x.size(); ++i) {
            for (std::size_t j = 1; j <= y.size(); ++j) {
                lengths_[i * columns_ + j] =
                    x[i - 1] == y[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
            }
        }
    }
    int at(std::size_t i, std::size_t j) const { return lengths_[i * columns_ + j]; }

private:
    std::size_t columns_;
    std::vector<int> lengths_;
};

/// Of several longest common subsequences the one that the package finds: it goes back in y where it can choose.
void add_common_words(const Words& x, const Words& y, std::set<int>& common) {
    const CommonLengths lengths(x, y);
    for (std::size_t i = x.size(), j = y.size(); i > 0 && j > 0;) {
        if (x[i - 1] == y[j - 1]) {
            common.insert(x[i - 1]);
            --i;
            --j;
        } else if (lengths.at(i - 1, j) > lengths.at(i, j - 1)) {
            --i;
        } else {
            --j;
        }
    }
}

double distinct_words(const std::vector<Words>& sentences) {
    std::set<int> words;
    for (const auto& sentence : sentences) words.insert(sentence.begin(), sentence.end());
    return static_cast<double>(words.size());
}

std::size_t longest(const std::vector<Words>& sentences) {
    std::size_t most = 0;
    for (const auto& sentence : sentences) most = std::max(most, sentence.size());
    return most;
}

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) {
        if (&word != &words.front()) text += ' ';
        text += word;
    }
    return text;
}

}  // namespace

std::size_t longest_sentence(std::string_view text) {
    Vocabulary vocabulary;
    return longest(sentences_of(text, vocabulary));
}

double rouge_l(std::string_view prediction, std::string_view truth) {
    Vocabulary vocabulary;
    const auto hypothesis = sentences_of(prediction, vocabulary);
    const auto reference = sentences_of(truth, vocabulary);
    if (hypothesis.empty() || reference.empty()) return 0;
    if (std::max(longest(hypothesis), longest(reference)) > most_sentence_words) return 0;
    std::set<int> common;
    for (const auto& theirs : reference) {
        for (const auto& ours : hypothesis) add_common_words(theirs, ours, common);
    }
    const double recall = static_cast<double>(common.size()) / distinct_words(reference);
    const double precision = static_cast<double>(common.size()) / distinct_words(hypothesis);
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8));
}

double rouge_l(const std::vector<std::string>& prediction, const std::vector<std::string>& truth) {
    return rouge_l(joined(prediction), joined(truth));
}

}  // namespace mha2mla::eval
