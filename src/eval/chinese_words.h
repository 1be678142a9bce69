#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mha2mla::eval {

/// Finds words in runs of characters that the dictionary does not know: each character begins, continues or ends a
/// word, or is one. The likeliest sequence of these states is a word's shape (Viterbi's algorithm).
class WordShapes {
public:
    enum State { begin, middle, end, single };
    static constexpr int states = 4;
    static constexpr double impossible = -3.14e100;

    /// Logarithms of probabilities: of the first state, of state after state, of a character in a state.
    std::array<double, states> first;
    std::array<std::array<double, states>, states> next;
    std::array<std::unordered_map<char32_t, double>, states> characters;

    /// The words of a run that is not empty.
    std::vector<std::u32string> cut(std::u32string_view run) const;
};

/// Cuts Chinese text into words as the PyPI package jieba 0.42.1 does by default (cut(text, HMM=True)): the likeliest
/// path through the words of a dictionary; what it leaves in single characters goes through WordShapes. Immutable.
class ChineseWords {
public:
    /// `folder` is that of the package: dict.txt and finalseg/prob_{start,trans,emit}.py are read. Throws Error where
    /// one is missing or damaged, saying how to get them.
    explicit ChineseWords(const std::filesystem::path& folder);

    /// The pieces of the text, which they make up again. Invalid bytes become U+FFFD.
    std::vector<std::string> cut(std::string_view text) const;

private:
    void cut_block(std::u32string_view block, std::vector<std::string>& pieces) const;
    void cut_unknown(std::u32string_view run, std::vector<std::string>& pieces) const;
    std::vector<std::size_t> likeliest_ends(std::u32string_view block) const;
    const std::int64_t* find(std::u32string_view text) const;

    std::unordered_map<std::string, std::int64_t> occurrences_;  // of words; 0: a word begins like this
    double log_total_ = 0;
    WordShapes shapes_;
};

}  // namespace mha2mla::eval
