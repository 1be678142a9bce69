#include "checkpoint/safetensors.h"

#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "core/memory.h"

namespace mha2mla::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";
constexpr std::size_t released_bytes = std::size_t{1} << 20;  // smaller reads are not worth a system call

/// Converts `out.size()` stored numbers. False where one is infinite or not a number.
template <typename Stored>
bool convert(const std::byte* data, std::span<float> out) {
    bool finite = true;
    for (std::size_t i = 0; i < out.size(); ++i) {
        Stored stored;
        std::memcpy(&stored, data + i * sizeof(Stored), sizeof(Stored));  // shards promise no alignment
        out[i] = core::to_float(stored);
        finite &= std::abs(out[i]) <= std::numeric_limits<float>::max();
    }
    return finite;
}

bool convert(core::DType type, const std::byte* data, std::span<float> out) {
    switch (type) {
        case core::DType::f32: return convert<float>(data, out);
        case core::DType::f16: return convert<core::f16>(data, out);
        case core::DType::bf16: return convert<core::bf16>(data, out);
    }
    return false;
}

/// tensor name -> shard file name. A shard must lie in the directory itself.
std::map<std::string, std::string> read_weight_map(const fs::path& index_path) {
    const auto json = core::parse_json(core::read_text(index_path), index_path.string());
    const core::JsonObject index(json, index_path.string());
    const auto weights = index.object("weight_map");
    std::map<std::string, std::string> shards;
    for (const auto& [name, shard] : index.raw("weight_map").items()) {
        const auto file = weights.string(name.c_str());
        if (file.empty() || fs::path(file).filename() != file || file == "." || file == "..") {
            weights.fail(name.c_str(), "the name of a file in the same directory");
        }
        shards.emplace(name, file);
    }
    return shards;
}

void check_shard(const fs::path& directory, const std::string& shard) {
    std::error_code error;
    if (fs::is_regular_file(directory / shard, error)) return;
    throw core::Error({.what = fmt::format("shard '{}' is missing", shard),
                       .where = (directory / index_file).string(),
                       .remedy = "fetch the missing file"});
}

[[noreturn]] void refuse_directory(const fs::path& directory) {
    throw core::Error({.what = fmt::format("neither {} nor {} is here", single_file, index_file),
                       .where = directory.string(),
                       .remedy = "pass a directory with safetensors weights or a .gguf file"});
}

}  // namespace

SafetensorsSource::SafetensorsSource(const fs::path& directory) {
    std::error_code error;
    if (fs::exists(directory / single_file, error)) {
        add_file(directory / single_file);
    } else if (fs::exists(directory / index_file, error)) {
        add_shards(directory / index_file);
    } else {
        refuse_directory(directory);
    }
}

void SafetensorsSource::add_file(const fs::path& path) {
    files_.emplace_back(path);
    for (auto& entry : parse_safetensors(files_.back().bytes(), path.string())) {
        const auto name = entry.name;
        const auto [place, added] = tensors_.try_emplace(name, Location{files_.size() - 1, std::move(entry)});
        if (added) continue;
        throw core::Error({.what = fmt::format("tensor '{}' is also in {}", name,
                                               files_[place->second.file].path().filename().string()),
                           .where = path.string()});
    }
}

void SafetensorsSource::add_shards(const fs::path& index_path) {
    const auto shards = read_weight_map(index_path);
    std::set<std::string> names;
    for (const auto& [tensor, shard] : shards) names.insert(shard);
    for (const auto& shard : names) check_shard(index_path.parent_path(), shard);
    for (const auto& shard : names) add_file(index_path.parent_path() / shard);
    for (const auto& [tensor, shard] : shards) {
        const auto found = tensors_.find(tensor);
        if (found != tensors_.end() && files_[found->second.file].path().filename() == shard) continue;
        throw core::Error({.what = fmt::format("tensor '{}' is not in '{}', where the index places it", tensor, shard),
                           .where = index_path.string()});
    }
    for (const auto& [tensor, location] : tensors_) {
        if (shards.contains(tensor)) continue;
        throw core::Error({.what = fmt::format("tensor '{}' is not in the index", tensor),
                           .where = files_[location.file].path().string()});
    }
}

const SafetensorsSource::Location& SafetensorsSource::find(std::string_view name) const {
    const auto found = tensors_.find(name);
    core::invariant(found != tensors_.end(), "a tensor is read only where shape_of knows it");
    return found->second;
}

std::vector<TensorSpec> SafetensorsSource::list() const {
    std::vector<TensorSpec> specs;
    for (const auto& [name, location] : tensors_) specs.push_back({name, location.entry.shape});
    return specs;
}

std::optional<Shape> SafetensorsSource::shape_of(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    return found->second.entry.shape;
}

std::string SafetensorsSource::stored_type(std::string_view name) const {
    switch (find(name).entry.type) {
        case core::DType::f32: return "F32";
        case core::DType::f16: return "F16";
        case core::DType::bf16: return "BF16";
    }
    return {};
}

void SafetensorsSource::read_rows(std::string_view name, std::int64_t first_row, std::int64_t rows,
                                  std::span<float> out) const {
    const auto& [file, entry] = find(name);
    const std::int64_t total_rows = entry.shape.empty() ? 1 : entry.shape[0];
    core::invariant(first_row >= 0 && rows >= 0 && first_row <= total_rows - rows, "rows lie within the tensor");
    const std::int64_t width = total_rows == 0 ? 0 : element_count(entry.shape) / total_rows;
    core::invariant(out.size() == static_cast<std::size_t>(rows * width), "the destination holds the rows asked for");
    const auto offset = static_cast<std::size_t>(first_row * width) * core::size_of(entry.type);
    const auto bytes = files_[file].bytes().subspan(entry.begin + offset, out.size() * core::size_of(entry.type));
    const bool finite = convert(entry.type, bytes.data(), out);
    if (bytes.size() >= released_bytes) core::release_pages(bytes);
    if (!finite) {
        throw core::Error({.what = fmt::format("tensor '{}' holds values that are not finite", name),
                           .where = files_[file].path().string(),
                           .remedy = "the weights are damaged: fetch them again"});
    }
}

void SafetensorsSource::release_pages() const {
    for (const auto& file : files_) core::release_pages(file.bytes());
}

}  // namespace mha2mla::checkpoint
