#include "checkpoint/gguf_file.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <set>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::uint32_t max_dimensions = 4;
constexpr std::int64_t default_alignment = 32;
// The least that the header can spend on a tensor (an empty name, one extent) and on a key-value pair.
constexpr std::size_t smallest_tensor_info = 8 + 4 + 8 + 4 + 8;
constexpr std::size_t smallest_pair = 8 + 4 + 1;

/// A tensor of the header: where it lies is not yet known.
struct TensorInfo {
    GgufTensor tensor;
    std::uint64_t offset = 0;  // bytes from the start of the data section
};

void check_version(GgufReader& reader, const std::string& where) {
    constexpr std::string_view magic = "GGUF";
    const auto front = reader.take(magic.size());
    if (!std::equal(magic.begin(), magic.end(), reinterpret_cast<const char*>(front.data()))) {
        throw core::Error({.what = "not a GGUF file", .where = where});
    }
    const auto version = reader.number<std::uint32_t>();
    if (version == 2 || version == 3) return;
    const bool big_endian = (version & 0xffff) == 0;
    throw core::Error({.what = big_endian ? "big-endian GGUF files are not supported"
                                          : fmt::format("GGUF version {} is not supported", version),
                       .expected = "little-endian version 2 or 3",
                       .where = where,
                       .remedy = "convert the model again with a current llama.cpp"});
}

std::uint64_t read_alignment(const GgufMetadata& metadata) {
    constexpr const char* key = "general.alignment";
    const auto alignment = metadata.integer_or(key, default_alignment, 1, 1 << 20);
    if (!std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
        metadata.fail(key, "a power of two", fmt::format("{}", alignment));
    }
    return static_cast<std::uint64_t>(alignment);
}

Shape read_shape(GgufReader& reader, std::string_view name) {
    const auto dimensions = reader.number<std::uint32_t>();
    if (dimensions < 1 || dimensions > max_dimensions) {
        reader.fail(fmt::format("tensor {} has {} dimensions", quoted(name), dimensions));
    }
    constexpr std::uint64_t max_elements = std::uint64_t{1} << 48;
    Shape shape(dimensions);
    std::uint64_t elements = 1;
    for (auto extent = shape.rbegin(); extent != shape.rend(); ++extent) {
        const auto stored = reader.number<std::uint64_t>();
        if (stored < 1 || stored > max_elements / elements) {
            reader.fail(fmt::format("tensor {} has an extent of {}", quoted(name), stored));
        }
        elements *= stored;
        *extent = static_cast<std::int64_t>(stored);
    }
    return shape;
}

const BlockType* read_block_type(GgufReader& reader, std::string_view name, const std::string& where) {
    const auto id = reader.number<std::uint32_t>();
    const auto* type = find_block_type(id);
    if (type != nullptr) return type;
    throw core::Error(
        {.what = fmt::format("tensor {} has type {}, which is not supported", quoted(name), stored_type_name(id)),
         .expected = supported_block_types(),
         .where = where});
}

TensorInfo read_tensor_info(GgufReader& reader, const std::string& where) {
    TensorInfo info;
    auto& tensor = info.tensor;
    tensor.name = reader.string();
    tensor.shape = read_shape(reader, tensor.name);
    tensor.type = read_block_type(reader, tensor.name, where);
    if (tensor.row_elements() % tensor.type->elements != 0) {
        reader.fail(fmt::format("rows of tensor {} have {} elements, no multiple of {}'s block of {}",
                                quoted(tensor.name), tensor.row_elements(), tensor.type->name, tensor.type->elements));
    }
    info.offset = reader.number<std::uint64_t>();
    return info;
}

/// The part of the data section that is the tensor's.
std::span<const std::byte> locate(const GgufReader& reader, const TensorInfo& info, std::span<const std::byte> data,
                                  std::uint64_t alignment) {
    const auto& tensor = info.tensor;
    const auto rows = static_cast<std::uint64_t>(element_count(tensor.shape) / tensor.row_elements());
    const std::uint64_t bytes = rows * tensor.row_bytes();  // at most 2^48 elements of at most 4 bytes
    if (info.offset % alignment != 0) {
        reader.fail(fmt::format("tensor {} begins at offset {}, no multiple of {}", quoted(tensor.name), info.offset,
                                alignment));
    }
    if (info.offset > data.size() || bytes > data.size() - info.offset) {
        reader.fail(fmt::format("tensor {} ends beyond the end of the file: {} bytes at offset {}, {} bytes of data",
                                quoted(tensor.name), bytes, info.offset, data.size()));
    }
    return data.subspan(info.offset, bytes);
}

void check_names(const GgufReader& reader, const std::vector<GgufTensor>& tensors) {
    std::set<std::string_view> names;
    for (const auto& tensor : tensors) {
        if (!names.insert(tensor.name).second) {
            reader.fail(fmt::format("tensor {} appears twice", quoted(tensor.name)));
        }
    }
}

void check_overlaps(const GgufReader& reader, const std::vector<GgufTensor>& tensors) {
    std::vector<const GgufTensor*> by_place;
    for (const auto& tensor : tensors) by_place.push_back(&tensor);
    std::sort(by_place.begin(), by_place.end(),
              [](const auto* a, const auto* b) { return a->data.data() < b->data.data(); });
    for (std::size_t i = 1; i < by_place.size(); ++i) {
        const auto& before = *by_place[i - 1];
        const auto& tensor = *by_place[i];
        if (before.data.data() + before.data.size() > tensor.data.data()) {
            reader.fail(fmt::format("tensors {} and {} overlap", quoted(before.name), quoted(tensor.name)));
        }
    }
}

}  // namespace

const GgufTensor* GgufFile::find(std::string_view name) const {
    const auto found =
        std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
    return found == tensors.end() ? nullptr : &*found;
}

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& where) {
    GgufReader reader(bytes, where);
    check_version(reader, where);
    const auto tensors = reader.count(reader.number<std::uint64_t>(), smallest_tensor_info, "tensors");
    const auto pairs = reader.count(reader.number<std::uint64_t>(), smallest_pair, "metadata pairs");

    GgufFile file{.metadata = GgufMetadata(where), .tensors = {}};
    for (std::uint64_t i = 0; i < pairs; ++i) file.metadata.read_pair(reader);
    std::vector<TensorInfo> infos;
    for (std::uint64_t i = 0; i < tensors; ++i) infos.push_back(read_tensor_info(reader, where));

    const auto alignment = read_alignment(file.metadata);
    const auto data_begin = (reader.position() + alignment - 1) / alignment * alignment;
    const auto data = bytes.subspan(std::min(data_begin, bytes.size()));
    for (auto& info : infos) {
        info.tensor.data = locate(reader, info, data, alignment);
        file.tensors.push_back(std::move(info.tensor));
    }
    check_names(reader, file.tensors);
    check_overlaps(reader, file.tensors);
    return file;
}

}  // namespace mha2mla::checkpoint
