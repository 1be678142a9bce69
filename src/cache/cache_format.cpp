#include "cache/cache_format.h"

#include <charconv>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

constexpr std::string_view code_prefix = "int";
constexpr std::string_view group_mark = "-g";
constexpr std::string_view channel_mark = "-c";
constexpr std::string_view kivi_prefix = "kivi";
constexpr int rotary_bits = 8;
constexpr int usual_group = 32;

bool known_bits(int bits) { return bits == 8 || bits == 4 || bits == 2; }

/// All of `text` as a number from 1 to 1024, or 0.
int small_number(std::string_view text) {
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole && number >= 1 && number <= 1024 ? number : 0;
}

RowFormat plain_rows(core::DType dtype) { return {.dtype = dtype, .codes = {}}; }

RowFormat rows_by_channel(int bits) {
    return {.codes = GroupFormat{.bits = bits, .group_elements = int{page_tokens}}, .by_channel = true};
}

std::optional<RowFormat> parse_codes(std::string_view name) {
    name.remove_prefix(code_prefix.size());
    GroupFormat format{.bits = 0, .group_elements = usual_group};
    const bool by_channel = name.ends_with(channel_mark);
    if (by_channel) name.remove_suffix(channel_mark.size());
    if (const auto mark = name.find(group_mark); !by_channel && mark != std::string_view::npos) {
        format.group_elements = small_number(name.substr(mark + group_mark.size()));
        name = name.substr(0, mark);
    }
    format.bits = small_number(name);
    if (!known_bits(format.bits) || format.group_elements == 0) return {};
    return by_channel ? rows_by_channel(format.bits) : RowFormat{.codes = format};
}

std::optional<RowFormat> parse_rows(std::string_view name) {
    for (const core::DType dtype : {core::DType::bf16, core::DType::f32}) {
        if (name == core::name_of(dtype)) return plain_rows(dtype);
    }
    return name.starts_with(code_prefix) ? parse_codes(name) : std::nullopt;
}

/// Rotary keys where only the other rows are named.
RowFormat usual_rotary(RowFormat content) {
    if (content.codes) content.codes->bits = rotary_bits;
    return content;
}

/// The two formats of "FIRST=a,SECOND=b".
std::optional<std::pair<RowFormat, RowFormat>> parse_pair(std::string_view name, std::string_view first,
                                                          std::string_view second) {
    const auto comma = name.find(',');
    if (!name.starts_with(first) || comma == std::string_view::npos) return {};
    const auto rest = name.substr(comma + 1);
    if (!rest.starts_with(second)) return {};
    const auto a = parse_rows(name.substr(first.size(), comma - first.size()));
    const auto b = parse_rows(rest.substr(second.size()));
    // What is not sealed has one type.
    if (!a || !b || a->dtype != b->dtype) return {};
    return std::pair{*a, *b};
}

std::optional<CacheFormat> parse(std::string_view name) {
    if (name.starts_with(kivi_prefix)) {
        const int bits = small_number(name.substr(kivi_prefix.size()));
        if (!known_bits(bits)) return {};
        const RowFormat values{.codes = GroupFormat{.bits = bits, .group_elements = usual_group}};
        return CacheFormat{.content = values, .rotary = usual_rotary(values), .keys = rows_by_channel(bits)};
    }
    if (const auto pair = parse_pair(name, "latent=", "rope=")) {
        return CacheFormat{.content = pair->first, .rotary = pair->second, .keys = pair->first};
    }
    if (const auto pair = parse_pair(name, "keys=", "values=")) {
        return CacheFormat{.content = pair->second, .rotary = usual_rotary(pair->second), .keys = pair->first};
    }
    const auto rows = parse_rows(name);
    if (!rows) return {};
    return CacheFormat{.content = *rows, .rotary = usual_rotary(*rows), .keys = *rows};
}

std::string name_of(const RowFormat& rows) {
    if (!rows.codes) return std::string(core::name_of(rows.dtype));
    std::string name = std::string(code_prefix) + std::to_string(rows.codes->bits);
    if (rows.by_channel) return name + std::string(channel_mark);
    const int group = rows.codes->group_elements;
    return group == usual_group ? name : name + std::string(group_mark) + std::to_string(group);
}

}  // namespace

std::size_t RowFormat::row_bytes(std::size_t elements) const {
    if (!codes) return elements * core::size_of(dtype);
    if (!by_channel) return codes->row_bytes(elements);
    constexpr auto tokens = static_cast<std::size_t>(page_tokens);
    return (elements * static_cast<std::size_t>(codes->bits) + 7) / 8 +
           (elements * sizeof(GroupScale) + tokens - 1) / tokens;
}

CacheFormat plain_format(core::DType dtype) {
    const RowFormat row = plain_rows(dtype);
    return {.content = row, .rotary = row, .keys = row};
}

CacheFormat parse_cache_format(const std::string& name, const std::string& where) {
    if (const auto format = parse(name)) return *format;
    throw core::Error({.what = "not a cache format",
                       .expected =
                           "bf16, f32, int8, int4 or int2, the latter three also with groups as in int4-g64 or by "
                           "channel as in int4-c; latent=A,rope=B; keys=A,values=B; kivi8, kivi4 or kivi2",
                       .got = "'" + name + "'",
                       .where = where});
}

void check_applies(const CacheFormat& format, bool has_latents, const std::string& where) {
    const bool applies = has_latents ? format.keys == format.content : format.rotary == usual_rotary(format.content);
    if (applies) return;
    throw core::Error(
        {.what = has_latents ? "a converted model caches latents and rotary keys, not keys and values"
                             : "the model caches keys and values, not latents and rotary keys",
         .expected = has_latents ? "a format for both, or latent=A,rope=B" : "a format for both, or keys=A,values=B",
         .got = "'" + name_of(format) + "'",
         .where = where});
}

std::string name_of(const CacheFormat& format) {
    const auto& codes = format.content.codes;
    const bool usual = format.rotary == usual_rotary(format.content);
    if (format.keys != format.content) {
        const std::string kivi = std::string(kivi_prefix) + (codes ? std::to_string(codes->bits) : "");
        if (parse(kivi) == format) return kivi;
        return "keys=" + name_of(format.keys) + ",values=" + name_of(format.content);
    }
    if (usual) return name_of(format.content);
    return "latent=" + name_of(format.content) + ",rope=" + name_of(format.rotary);
}

}  // namespace mha2mla::cache
