#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>

#include "eval/chinese_words.h"

namespace mha2mla::eval {

/// What dict.txt says: occurrences of words, 0 for what only begins one, and the sum over all lines.
struct WordCounts {
    std::unordered_map<std::string, std::int64_t> occurrences;
    std::int64_t total = 0;
};

/// Lines of "word occurrences kind". Throws Error naming the line.
WordCounts read_word_counts(const std::filesystem::path& path);

/// The three tables of finalseg. They are Python files: `P={'B': {'\u4e00': -3.65, ...}, ...}`; nothing of them is
/// run. Throws Error naming the file and the byte.
WordShapes read_word_shapes(const std::filesystem::path& folder);

}  // namespace mha2mla::eval
