#include "checkpoint/shard_plan.h"

#include <fmt/format.h>

#include "core/json.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::size_t data_alignment = 8;

const char* safetensors_type(core::DType dtype) {
    switch (dtype) {
        case core::DType::f32: return "F32";
        case core::DType::f16: return "F16";
        case core::DType::bf16: return "BF16";
    }
    return "";
}

std::string shard_name(std::size_t shard, std::size_t count) {
    return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, count);
}

/// The JSON after 8 bytes of little-endian length, padded with spaces.
std::string header_text(const core::OrderedJson& json) {
    std::string text = json.dump();
    text.resize((text.size() + data_alignment - 1) / data_alignment * data_alignment, ' ');
    std::string length;
    for (std::size_t i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> (8 * i) & 0xff);
    return length + text;
}

/// Fills in shard and byte range of each tensor; the shards' sizes come back.
std::vector<std::int64_t> place(std::vector<PlannedTensor>& tensors, core::DType dtype, std::int64_t max_shard_bytes) {
    std::vector<std::int64_t> sizes{0};
    for (auto& tensor : tensors) {
        const auto bytes = element_count(tensor.spec.shape) * static_cast<std::int64_t>(core::size_of(dtype));
        if (sizes.back() > 0 && sizes.back() + bytes > max_shard_bytes) sizes.push_back(0);
        tensor.shard = sizes.size() - 1;
        tensor.begin = sizes.back();
        tensor.end = sizes.back() += bytes;
    }
    return sizes;
}

}  // namespace

ShardPlan plan_shards(std::vector<TensorSpec> specs, core::DType dtype, std::int64_t max_shard_bytes) {
    ShardPlan plan;
    for (auto& spec : specs) plan.tensors.push_back({.spec = std::move(spec)});
    const auto sizes = place(plan.tensors, dtype, max_shard_bytes);
    std::vector<core::OrderedJson> headers(sizes.size(), {{"__metadata__", {{"format", "pt"}}}});
    for (const auto& tensor : plan.tensors) {
        auto& entry = headers[tensor.shard][tensor.spec.name];
        entry["dtype"] = safetensors_type(dtype);
        entry["shape"] = tensor.spec.shape;
        entry["data_offsets"] = {tensor.begin, tensor.end};
    }
    for (std::size_t shard = 0; shard < sizes.size(); ++shard) {
        plan.shards.push_back({shard_name(shard, sizes.size()), header_text(headers[shard]), sizes[shard]});
        plan.total_bytes += sizes[shard];
    }
    return plan;
}

std::string ShardPlan::index_json() const {
    core::OrderedJson index;
    index["metadata"]["total_size"] = total_bytes;
    for (const auto& tensor : tensors) index["weight_map"][tensor.spec.name] = shards[tensor.shard].file_name;
    return index.dump(2) + "\n";
}

}  // namespace mha2mla::checkpoint
