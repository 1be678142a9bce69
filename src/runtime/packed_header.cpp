#include "runtime/packed_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <string_view>
#include <utility>

#include "core/fingerprint.h"
#include "core/json.h"
#include "kernels/coded_weights.h"

namespace mha2mla::runtime {
namespace {

using kernels::PackedMatrix;
using kernels::WeightFormat;

constexpr std::string_view magic{"mha2mla\0", 8};
constexpr std::uint32_t version = 1;
constexpr std::size_t digits = 16;                                // of a fingerprint
constexpr std::size_t header_place = magic.size() + 8 + digits;   // where the JSON begins
constexpr std::size_t most_header_bytes = std::size_t{64} << 20;  // far more than any model's
constexpr std::int64_t most_rows = std::int64_t{1} << 24;         // of either side: products stay far below 2^63
constexpr std::size_t alignment = 64;

constexpr std::array formats{WeightFormat::f32, WeightFormat::bf16, WeightFormat::coded_bf16, WeightFormat::int8,
                             WeightFormat::int4};

std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

std::string hash(std::string_view text) {
    core::Fingerprint print;
    print.add(std::as_bytes(std::span(text)));
    return print.hex();
}

[[noreturn]] void refuse_damaged(const char* expected, const std::string& where) {
    refuse_packed_weights({.what = "the file of packed weights is damaged", .expected = expected}, where);
}

std::uint32_t number_at(std::string_view text, std::size_t place) {
    std::uint32_t number = 0;
    std::memcpy(&number, text.data() + place, sizeof number);
    return number;
}

/// The JSON text, after magic, version, length and fingerprint were checked.
std::string_view header_of(std::string_view text, const std::string& where) {
    if (text.size() < header_place || text.substr(0, magic.size()) != magic) {
        refuse_damaged("a file that mha2mla pack wrote", where);
    }
    if (const auto found = number_at(text, magic.size()); found != version) {
        refuse_packed_weights({.what = "the packed weights were written by another version of this program",
                               .expected = fmt::format("layout {}", version),
                               .got = fmt::to_string(found)},
                              where);
    }
    const std::size_t bytes = number_at(text, magic.size() + 4);
    if (bytes > most_header_bytes || bytes > text.size() - header_place) refuse_damaged("a whole header", where);
    const std::string_view header = text.substr(header_place, bytes);
    if (hash(header) != text.substr(header_place - digits, digits)) refuse_damaged("a header as it was written", where);
    return header;
}

WeightFormat format_named(const core::JsonObject& entry) {
    const std::string name = entry.string("format");
    for (const WeightFormat format : formats) {
        if (kernels::name_of(format) == name) return format;
    }
    entry.fail("format", "f32, bf16, coded-bf16, int8 or int4");
}

/// `data`: what follows the header.
PackedMatrix parse_matrix(const core::JsonObject& entry, std::span<const std::byte> data, const std::string& where) {
    PackedMatrix matrix{.format = format_named(entry),
                        .outputs = entry.integer("outputs", 1, most_rows),
                        .inputs = entry.integer("inputs", 1, most_rows)};
    if (matrix.format == WeightFormat::coded_bf16) {
        matrix.exceptions = entry.integer("exceptions", 0, matrix.outputs * matrix.inputs);
    }
    const auto offset = static_cast<std::size_t>(entry.integer("offset", 0, std::int64_t{1} << 50));
    if (offset % alignment != 0) refuse_damaged("matrices at multiples of 64 bytes", where);
    if (offset > data.size() || bytes_of(matrix) > data.size() - offset) {
        refuse_damaged("matrices that lie within the file", where);
    }
    matrix.data = data.data() + offset;
    if (matrix.format == WeightFormat::coded_bf16 && !kernels::has_sound_exceptions(matrix)) {
        refuse_damaged("exceptions that lie within their tiles", where);
    }
    return matrix;
}

/// No matrix lies over another, and nothing behind the last.
void check_places(const PackedIndex& index, std::span<const std::byte> data, const std::string& where) {
    std::vector<std::pair<const std::byte*, std::size_t>> places;
    for (const auto& [name, matrix] : index.matrices) {
        places.emplace_back(static_cast<const std::byte*>(matrix.data), bytes_of(matrix));
    }
    std::sort(places.begin(), places.end());
    for (std::size_t i = 1; i < places.size(); ++i) {
        const auto& [begin, bytes] = places[i - 1];
        if (begin + bytes > places[i].first) refuse_damaged("matrices one after the other", where);
    }
    const std::byte* const end = places.empty() ? data.data() : places.back().first + places.back().second;
    if (end != data.data() + data.size()) refuse_damaged("an end behind the last matrix", where);
}

}  // namespace

void refuse_packed_weights(core::ErrorInfo info, const std::string& where) {
    info.where = where;
    info.remedy = "delete it, or write it anew with mha2mla pack";
    throw core::Error(std::move(info));
}

PackedIndex parse_packed_weights(std::span<const std::byte> bytes, const std::string& where) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::string_view header = header_of(text, where);
    const core::Json json = core::parse_json(header, where);
    const core::JsonObject object(json, where);
    PackedIndex index{.model = object.string("model"), .formats = object.string("formats"), .matrices = {}};
    const core::JsonObject matrices = object.object("matrices");
    const auto data = bytes.subspan(std::min(bytes.size(), aligned(header_place + header.size())));
    for (const auto& [name, entry] : object.raw("matrices").items()) {
        index.matrices.emplace(name, parse_matrix(matrices.object(name.c_str()), data, where));
    }
    check_places(index, data, where);
    return index;
}

PackedLayout packed_layout(const PackedOrigin& origin, std::span<const NamedMatrix> matrices) {
    PackedLayout layout;
    core::OrderedJson entries = core::OrderedJson::object();
    std::size_t offset = 0;
    for (const NamedMatrix& matrix : matrices) {
        core::invariant(!entries.contains(matrix.name), "every packed matrix has a name of its own");
        entries[matrix.name] = {{"format", kernels::name_of(matrix.matrix.format)},
                                {"outputs", matrix.matrix.outputs},
                                {"inputs", matrix.matrix.inputs},
                                {"offset", offset}};
        if (matrix.matrix.format == WeightFormat::coded_bf16) {
            entries[matrix.name]["exceptions"] = matrix.matrix.exceptions;
        }
        layout.offsets.push_back(offset);
        offset += aligned(matrix.bytes());
    }
    const core::OrderedJson object{{"model", origin.model}, {"formats", origin.formats}, {"matrices", entries}};
    const std::string header = object.dump();
    const std::uint32_t numbers[] = {version, static_cast<std::uint32_t>(header.size())};
    layout.head.append(magic).append(reinterpret_cast<const char*>(numbers), sizeof numbers);
    layout.head.append(hash(header)).append(header);
    for (std::size_t& place : layout.offsets) place += aligned(layout.head.size());
    return layout;
}

}  // namespace mha2mla::runtime
