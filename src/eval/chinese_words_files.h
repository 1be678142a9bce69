#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>

#include "eval/chinese_words.h"

namespace mha2mla::eval {

/// What dict.txt says: occurrences of words, 0 for what only begins one, and the sum over all lines.
struct WordCounts {
    std::unordered_map<std::string, std::int64_t> occurrences;
    std::int64_t total = 0;
};

/// Lines of "word occurrences kind". Throws Error naming the line of `where`.
WordCounts parse_word_counts(std::string_view text, const std::string& where);

/// The three tables of finalseg as text. They are Python files: `P={'B': {'\u4e00': -3.65, ...}, ...}`; nothing of them
/// is run.
struct ShapeTables {
    std::string start;
    std::string trans;
    std::string emit;
};

/// Throws Error naming the file in `folder` and the byte.
WordShapes parse_word_shapes(const ShapeTables& tables, const std::filesystem::path& folder);

/// The same from the package's files. Throws Error where one is missing, saying how to get it.
WordCounts read_word_counts(const std::filesystem::path& path);
WordShapes read_word_shapes(const std::filesystem::path& folder);

}  // namespace mha2mla::eval
