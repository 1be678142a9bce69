#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"
#include "data/lines.h"
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

}  // namespace

std::string checked_text(std::string text, const std::string& where) {
    const std::size_t valid = core::valid_utf8_prefix(text);
    if (valid != text.size()) {
        throw core::Error({.what = fmt::format("the text is not UTF-8 (byte {})", valid),
                           .where = where,
                           .remedy = "convert it, for example with iconv -t UTF-8"});
    }
    drop_carriage_returns(text);
    return text;
}

std::string read_text_file(const std::filesystem::path& path) {
    return checked_text(core::read_text(path), path.string());
}

std::vector<std::string> read_documents(const std::filesystem::path& path) {
    std::vector<std::string> documents;
    if (path.extension() == ".jsonl") {
        for_each_json_line(read_text_file(path), path.string(),
                           [&](const core::JsonObject& line) { documents.push_back(line.string("text")); });
    } else {
        documents.push_back(read_text_file(path));
    }
    return documents;
}

}  // namespace mha2mla::data
