#include "data/lines.h"

#include <algorithm>

namespace mha2mla::data {

void for_each_line(std::string_view text, const std::string& name,
                   core::FunctionRef<void(std::string_view line, const std::string& where)> visit) {
    int number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        auto line = text.substr(begin, end - begin);
        if (line.ends_with('\r')) line.remove_suffix(1);
        begin = end + 1;
        ++number;
        if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
        visit(line, name + ", line " + std::to_string(number));
    }
}

void for_each_json_line(std::string_view text, const std::string& name,
                        core::FunctionRef<void(const core::JsonObject& line)> visit) {
    for_each_line(text, name, [&](std::string_view line, const std::string& where) {
        const auto json = core::parse_json(line, where);
        visit(core::JsonObject(json, where));
    });
}

}  // namespace mha2mla::data
