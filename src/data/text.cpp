#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/utf8.h"
#include "data/windows.h"

namespace mha2mla::data {
namespace {

/// In place: CR LF becomes LF; a CR alone stays.
void drop_carriage_returns(std::string& text) {
    std::size_t size = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool ends_line = text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
        if (!ends_line) text[size++] = text[i];
    }
    text.resize(size);
}

std::vector<std::string> read_json_lines(const std::string& lines, const std::string& path) {
    std::vector<std::string> documents;
    int number = 0;
    for (std::size_t begin = 0; begin < lines.size();) {
        const std::size_t end = std::min(lines.find('\n', begin), lines.size());
        const auto line = std::string_view(lines).substr(begin, end - begin);
        begin = end + 1;
        ++number;
        if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
        const std::string where = fmt::format("{}, line {}", path, number);
        const auto json = core::parse_json(line, where);
        documents.push_back(core::JsonObject(json, where).string("text"));
    }
    return documents;
}

}  // namespace

std::string read_text_file(const std::filesystem::path& path) {
    std::string text = core::read_text(path);
    const std::size_t valid = core::valid_utf8_prefix(text);
    if (valid != text.size()) {
        throw core::Error({.what = fmt::format("the text is not UTF-8 (byte {})", valid),
                           .where = path.string(),
                           .remedy = "convert it, for example with iconv -t UTF-8"});
    }
    drop_carriage_returns(text);
    return text;
}

std::vector<std::string> read_documents(const std::filesystem::path& path) {
    std::string text = read_text_file(path);
    if (path.extension() == ".jsonl") return read_json_lines(text, path.string());
    std::vector<std::string> documents;
    documents.push_back(std::move(text));
    return documents;
}

}  // namespace mha2mla::data
