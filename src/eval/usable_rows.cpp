#include "eval/usable_rows.h"

#include <optional>
#include <string_view>

#include "core/error.h"
#include "data/gzip.h"
#include "data/lines.h"

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

std::vector<std::string> for_each_usable_row(const std::filesystem::path& path, int limit,
                                             core::FunctionRef<void(const core::JsonObject&, int)> take,
                                             core::FunctionRef<void(const core::JsonObject&)> check) {
    std::vector<std::string> left_out;
    int rows = 0;
    data::for_each_line(data::read_maybe_gzipped(path), path.string(),
                        [&](std::string_view line, const std::string& where) {
                            if (limit > 0 && rows == limit) return;
                            ++rows;
                            const auto json = parse_line(line, where, left_out);
                            if (!json) return;
                            const core::JsonObject fields(*json, where);
                            check(fields);
                            try {
                                take(fields, rows);
                            } catch (const core::Error& error) {
                                left_out.emplace_back(error.what());
                            }
                        });
    if (std::ssize(left_out) < rows) return left_out;
    throw core::Error({.what = "the file has no row that can be used",
                       .got = left_out.empty() ? "no rows" : left_out.front(),
                       .where = path.string()});
}

}  // namespace mha2mla::eval
