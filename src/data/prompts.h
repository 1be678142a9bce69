#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mha2mla::data {

struct Prompt {
    std::string text;
    std::string where;  ///< "prompts.txt, line 3"
};

/// The prompts of a file, or of standard input where the path is "-": one a line, or, where the file's first character
/// is '{', the field "prompt" of each line's JSON object. Empty lines are skipped. Throws Error naming the line; a file
/// without prompts is one, too.
std::vector<Prompt> read_prompts(const std::filesystem::path& path);

/// The same from text that is already there.
std::vector<Prompt> parse_prompts(const std::string& text, const std::string& name);

}  // namespace mha2mla::data
