#include "data/prompts.h"

#include <iostream>
#include <iterator>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "data/lines.h"
#include "data/windows.h"

namespace mha2mla::data {
namespace {

std::string prompt_of_json(std::string_view line, const std::string& where) {
    const auto json = core::parse_json(line, where);
    std::string prompt = core::JsonObject(json, where).string("prompt");
    if (prompt.empty()) throw core::Error({.what = "the prompt is empty", .where = where});
    return prompt;
}

}  // namespace

std::vector<Prompt> parse_prompts(const std::string& text, const std::string& name) {
    const bool is_json = text.starts_with('{');
    std::vector<Prompt> prompts;
    for_each_line(text, name, [&](std::string_view line, const std::string& where) {
        if (core::valid_utf8_prefix(line) != line.size()) {
            throw core::Error({.what = "the prompt is not UTF-8",
                               .where = where,
                               .remedy = "convert it, for example with iconv -t UTF-8"});
        }
        prompts.push_back({.text = is_json ? prompt_of_json(line, where) : std::string(line), .where = where});
    });
    if (prompts.empty()) {
        throw core::Error({.what = "there are no prompts",
                           .expected = "one a line, or a JSON object with \"prompt\" a line",
                           .where = name});
    }
    return prompts;
}

std::vector<Prompt> read_prompts(const std::filesystem::path& path) {
    if (path != "-") return parse_prompts(read_text_file(path), path.string());
    return parse_prompts({std::istreambuf_iterator<char>(std::cin), {}}, "standard input");
}

}  // namespace mha2mla::data
