#include "eval/answers_lines.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/file.h"

namespace mha2mla::eval {
namespace {

/// The object of a line; none, and the reason in `left_out`, where there is none.
std::optional<core::Json> parse_line(std::string_view line, const std::string& where,
                                     std::vector<std::string>& left_out) {
    try {
        auto json = core::parse_json(line, where);
        const core::JsonObject is_object(json, where);
        return json;
    } catch (const core::Error& error) {
        left_out.emplace_back(error.what());
        return std::nullopt;
    }
}

}  // namespace

std::vector<std::string> for_each_json_line(const std::filesystem::path& path, int limit,
                                            core::FunctionRef<void(const core::JsonObject&, int)> take,
                                            core::FunctionRef<void(const core::JsonObject&)> check) {
    const std::string text = core::read_text(path);
    std::vector<std::string> left_out;
    int number = 0, rows = 0, taken = 0;
    for (std::size_t begin = 0; begin < text.size() && (limit == 0 || rows < limit);) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const auto line = std::string_view(text).substr(begin, end - begin);
        begin = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        ++rows;
        const std::string where = fmt::format("{}, line {}", path.string(), number);
        const auto json = parse_line(line, where, left_out);
        if (!json) continue;
        const core::JsonObject fields(*json, where);
        check(fields);
        try {
            take(fields, number);
            ++taken;
        } catch (const core::Error& error) {
            left_out.emplace_back(error.what());
        }
    }
    if (taken > 0) return left_out;
    throw core::Error({.what = "the file has no row that can be used",
                       .got = left_out.empty() ? "no rows" : left_out.front(),
                       .where = path.string()});
}

}  // namespace mha2mla::eval
