#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/json.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::size_t length_bytes = 8;
constexpr std::size_t max_header_bytes = 100'000'000;  // the format's own limit
constexpr std::size_t max_rank = 8;

[[noreturn]] void fail(const std::string& where, std::string what) {
    throw core::Error(
        {.what = std::move(what), .where = where, .remedy = "the file is damaged or incomplete: fetch it again"});
}

std::size_t read_header_length(std::span<const std::byte> file, const std::string& where) {
    if (file.size() < length_bytes) fail(where, "file is too short for a safetensors header");
    std::uint64_t length = 0;
    for (std::size_t i = length_bytes; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(file[i]);
    if (length > max_header_bytes || length > file.size() - length_bytes) {
        fail(where,
             fmt::format("header length {} exceeds the file ({} bytes) or the format's limit", length, file.size()));
    }
    return static_cast<std::size_t>(length);
}

core::DType read_type(const core::JsonObject& fields) {
    const auto name = fields.string("dtype");
    if (name == "F32") return core::DType::f32;
    if (name == "F16") return core::DType::f16;
    if (name != "BF16") fields.fail("dtype", "F32, F16 or BF16");
    return core::DType::bf16;
}

SafetensorsEntry read_entry(const core::JsonObject& fields, const std::string& name, std::size_t data_bytes) {
    const auto last = static_cast<std::int64_t>(data_bytes);
    SafetensorsEntry entry{.name = name, .type = read_type(fields)};
    entry.shape = fields.integers("shape", 0, std::int64_t{1} << 48);
    if (entry.shape.size() > max_rank) fields.fail("shape", fmt::format("at most {} extents", max_rank));
    const auto offsets = fields.integers("data_offsets", 0, last);
    if (offsets.size() != 2 || offsets[0] > offsets[1]) fields.fail("data_offsets", "[begin, end]");
    const auto bytes =
        element_count(entry.shape, fields.where()) * static_cast<std::int64_t>(core::size_of(entry.type));
    if (offsets[1] - offsets[0] != bytes) {
        fields.fail("data_offsets", fmt::format("{} bytes for shape {}", bytes, to_string(entry.shape)));
    }
    entry.begin = static_cast<std::size_t>(offsets[0]);
    entry.end = static_cast<std::size_t>(offsets[1]);
    return entry;
}

void check_overlaps(const std::vector<SafetensorsEntry>& sorted, const std::string& where) {
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        if (sorted[i].begin >= sorted[i - 1].end) continue;
        fail(where, fmt::format("tensors '{}' and '{}' overlap", sorted[i - 1].name, sorted[i].name));
    }
}

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file, const std::string& where) {
    const std::size_t header_bytes = read_header_length(file, where);
    const std::size_t data_start = length_bytes + header_bytes;
    const std::string_view text(reinterpret_cast<const char*>(file.data()) + length_bytes, header_bytes);
    const auto header = core::parse_json(text, where);
    if (!header.is_object()) fail(where, "header is not a JSON object");

    std::vector<SafetensorsEntry> entries;
    for (const auto& [name, value] : header.items()) {
        if (name == "__metadata__") continue;
        const core::JsonObject fields(value, fmt::format("{}, tensor '{}'", where, name));
        entries.push_back(read_entry(fields, name, file.size() - data_start));
        entries.back().begin += data_start;
        entries.back().end += data_start;
    }
    // By place; an empty tensor comes before a full one at the same place, with which it cannot overlap.
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    check_overlaps(entries, where);
    return entries;
}

}  // namespace mha2mla::checkpoint
