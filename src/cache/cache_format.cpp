#include "cache/cache_format.h"

#include <charconv>
#include <string_view>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

constexpr std::string_view code_prefix = "int";
constexpr std::string_view group_mark = "-g";
constexpr int rotary_bits = 8;
constexpr int usual_group = 32;

/// All of `text` as a number from 1 to 1024, or 0.
int small_number(std::string_view text) {
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole && number >= 1 && number <= 1024 ? number : 0;
}

std::optional<GroupFormat> parse_codes(std::string_view name) {
    if (!name.starts_with(code_prefix)) return {};
    name.remove_prefix(code_prefix.size());
    GroupFormat format{.bits = 0, .group_elements = usual_group};
    if (const auto mark = name.find(group_mark); mark != std::string_view::npos) {
        format.group_elements = small_number(name.substr(mark + group_mark.size()));
        name = name.substr(0, mark);
    }
    format.bits = small_number(name);
    const bool known_bits = format.bits == 8 || format.bits == 4 || format.bits == 2;
    if (!known_bits || format.group_elements == 0) return {};
    return format;
}

}  // namespace

std::size_t RowFormat::row_bytes(std::size_t elements) const {
    return codes ? codes->row_bytes(elements) : elements * core::size_of(dtype);
}

CacheFormat plain_format(core::DType dtype) {
    const RowFormat row{.dtype = dtype, .codes = {}};
    return {.content = row, .rotary = row};
}

CacheFormat parse_cache_format(const std::string& name, const std::string& where) {
    if (name == core::name_of(core::DType::bf16)) return plain_format(core::DType::bf16);
    const auto codes = parse_codes(name);
    if (!codes) {
        throw core::Error({.what = "not a cache format",
                           .expected = "bf16, int8, int4 or int2, the latter three also with groups as in int4-g64",
                           .got = "'" + name + "'",
                           .where = where});
    }
    GroupFormat rotary = *codes;
    rotary.bits = rotary_bits;
    return {.content = {.dtype = core::DType::bf16, .codes = codes},
            .rotary = {.dtype = core::DType::bf16, .codes = rotary}};
}

std::string name_of(const CacheFormat& format) {
    const auto& codes = format.content.codes;
    if (!codes) return std::string(core::name_of(format.content.dtype));
    std::string name = std::string(code_prefix) + std::to_string(codes->bits);
    if (codes->group_elements != usual_group) name += std::string(group_mark) + std::to_string(codes->group_elements);
    return name;
}

}  // namespace mha2mla::cache
