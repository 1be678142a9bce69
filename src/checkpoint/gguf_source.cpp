#include "checkpoint/gguf_source.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <utility>

#include "checkpoint/gguf_llama.h"
#include "core/error.h"
#include "core/memory.h"

namespace mha2mla::checkpoint {
GgufSource::GgufSource(const GgufFile& file, const ModelConfig& config, std::shared_ptr<const core::MappedFile> mapping)
    : mapping_(std::move(mapping)), where_(file.metadata.where()), head_dim_(config.head_dim) {
    for (const auto& tensor : file.tensors) {
        if (tensor.name == rope_factors_tensor) continue;
        const auto name = llama_tensor_name(tensor.name);
        if (!name) {
            throw core::Error(
                {.what = fmt::format("tensor {} has no place in a llama model", quoted(tensor.name)), .where = where_});
        }
        const auto place = entries_.emplace(name->name, Entry{tensor, name->interleaved}).first;
        check(place->second);
    }
}

/// Holds what read_rows relies on: rows consist of whole blocks, interleaved rows of whole heads.
void GgufSource::check(const Entry& entry) const {
    const auto& [tensor, interleaved] = entry;
    if (tensor.shape.size() == 1 && tensor.type->elements != 1) {
        throw core::Error({.what = fmt::format("tensor {} is a vector in a block format", quoted(tensor.name)),
                           .expected = "F32, F16 or BF16",
                           .got = tensor.type->name,
                           .where = where_});
    }
    if (interleaved && tensor.shape[0] % head_dim_ != 0) {
        throw core::Error({.what = fmt::format("tensor {} does not consist of whole heads", quoted(tensor.name)),
                           .expected = fmt::format("a multiple of {} rows", head_dim_),
                           .got = to_string(tensor.shape),
                           .where = where_});
    }
}

const GgufSource::Entry& GgufSource::find(std::string_view name) const {
    const auto found = entries_.find(name);
    core::invariant(found != entries_.end(), "a tensor is read only where shape_of knows it");
    return found->second;
}

std::vector<TensorSpec> GgufSource::list() const {
    std::vector<TensorSpec> specs;
    for (const auto& [name, entry] : entries_) specs.push_back({name, entry.tensor.shape});
    return specs;
}

std::optional<Shape> GgufSource::shape_of(std::string_view name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) return std::nullopt;
    return found->second.tensor.shape;
}

std::string GgufSource::stored_type(std::string_view name) const { return find(name).tensor.type->name; }

std::int64_t GgufSource::stored_row(std::int64_t row) const {
    const std::int64_t dim = row % head_dim_;
    const std::int64_t pairs = head_dim_ / 2;
    return row - dim + 2 * (dim % pairs) + dim / pairs;
}

template <typename Value, typename Convert>
void GgufSource::each_run(const RowRange& range, std::span<Value> out, Convert convert) const {
    const auto& [tensor, interleaved] = find(range.name);
    core::invariant(range.first >= 0 && range.rows >= 0 && range.first <= tensor.shape[0] - range.rows,
                    "rows lie within the tensor");
    const BlockType& type = *tensor.type;
    const std::int64_t row_blocks = element_count(tensor.shape) / tensor.shape[0] / type.elements;
    const std::int64_t run_rows = interleaved ? 1 : range.rows;
    const std::int64_t row_values = range.rows == 0 ? 0 : static_cast<std::int64_t>(out.size()) / range.rows;
    for (std::int64_t row = 0; row < range.rows; row += run_rows) {
        const std::int64_t stored = interleaved ? stored_row(range.first + row) : range.first;
        convert(tensor.data.data() + stored * row_blocks * type.bytes, run_rows * row_blocks,
                out.data() + row * row_values);
    }
}

void GgufSource::read_rows(std::string_view name, std::int64_t first_row, std::int64_t rows,
                           std::span<float> out) const {
    const GgufTensor& tensor = find(name).tensor;
    const std::int64_t width = element_count(tensor.shape) / tensor.shape[0];
    core::invariant(out.size() == static_cast<std::size_t>(rows * width), "the destination holds the rows asked for");
    each_run({name, first_row, rows}, out, tensor.type->dequantize);
    if (std::all_of(out.begin(), out.end(), [](float value) { return std::isfinite(value); })) return;
    throw core::Error({.what = fmt::format("tensor '{}' holds values that are not finite", name),
                       .where = where_,
                       .remedy = "the weights are damaged: fetch them again"});
}

bool GgufSource::has_codes(std::string_view name) const { return find(name).tensor.type->codes != nullptr; }

void GgufSource::read_codes(std::string_view name, std::int64_t first_row, std::int64_t rows,
                            std::span<core::CodeGroup> out) const {
    const GgufTensor& tensor = find(name).tensor;
    core::invariant(tensor.type->codes != nullptr, "codes are read only where has_codes says so");
    const auto groups = element_count(tensor.shape) / tensor.shape[0] / tensor.type->elements;
    core::invariant(out.size() == static_cast<std::size_t>(rows * groups), "the destination holds the rows asked for");
    each_run({name, first_row, rows}, out, tensor.type->codes);
    const auto finite = [](const core::CodeGroup& group) {
        return std::isfinite(core::to_float(group.scale)) && std::isfinite(core::to_float(group.minimum));
    };
    if (std::all_of(out.begin(), out.end(), finite)) return;
    throw core::Error({.what = fmt::format("tensor '{}' has a block whose scale or minimum is not finite", name),
                       .where = where_,
                       .remedy = "the weights are damaged: fetch them again"});
}

void GgufSource::release_pages() const {
    if (mapping_) core::release_pages(mapping_->bytes());
}

}  // namespace mha2mla::checkpoint
