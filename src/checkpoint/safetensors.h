#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensors.h"
#include "core/dtype.h"
#include "core/file.h"

namespace mha2mla::checkpoint {

/// One tensor of a safetensors file.
struct SafetensorsEntry {
    std::string name;
    core::DType type = core::DType::f32;
    Shape shape = {};
    std::size_t begin = 0;  ///< bytes from the start of the file
    std::size_t end = 0;
};

/// Reads the header of a safetensors file (8 bytes of length, a JSON object, then the data). Every entry lies within
/// the file, is as long as its type and shape say, and overlaps no other. `where` names the file in errors.
/// Source: the format description of github.com/huggingface/safetensors.
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file, const std::string& where);

/// The tensors of a directory: model.safetensors, or the shards that model.safetensors.index.json names. Mapped, so
/// opening reads the headers alone.
class SafetensorsSource : public TensorSource {
public:
    /// Throws Error naming the file: a missing shard, a damaged header, a tensor twice, an index that lies.
    explicit SafetensorsSource(const std::filesystem::path& directory);

    std::vector<TensorSpec> list() const override;
    std::optional<Shape> shape_of(std::string_view name) const override;
    std::string stored_type(std::string_view name) const override;
    void read_rows(std::string_view name, std::int64_t first_row, std::int64_t rows,
                   std::span<float> out) const override;
    void release_pages() const override;

private:
    struct Location {
        std::size_t file = 0;
        SafetensorsEntry entry;
    };

    void add_file(const std::filesystem::path& path);
    void add_shards(const std::filesystem::path& index_path);
    const Location& find(std::string_view name) const;

    std::vector<core::MappedFile> files_;
    std::map<std::string, Location, std::less<>> tensors_;
};

}  // namespace mha2mla::checkpoint
