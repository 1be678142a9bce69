#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.h"
#include "core/code_group.h"
#include "core/dtype.h"

namespace mha2mla::checkpoint {

using Shape = std::vector<std::int64_t>;

/// "[576, 192]"
std::string to_string(const Shape& shape);
/// Product of the extents. Throws Error, naming `where`, on a negative extent or a product beyond 2^48.
std::int64_t element_count(const Shape& shape, const std::string& where = {});

/// A tensor by name and shape; what a file holds or what a model asks for.
struct TensorSpec {
    std::string name;
    Shape shape;

    bool operator==(const TensorSpec&) const = default;
};

/// Names of the tensors of layer `layer`, as Hugging Face spells them: layer_tensor(3, "self_attn.q_proj.weight").
std::string layer_tensor(int layer, std::string_view name);

/// Every tensor that a model of this config consists of, in file order. The one list that readers validate against,
/// the writer declares from and the modules load by.
std::vector<TensorSpec> expected_tensors(const ModelConfig& config);
/// Those of one layer only.
std::vector<TensorSpec> expected_layer_tensors(const ModelConfig& config, int layer);

/// Named tensors of one container format (safetensors shards, a GGUF file). Values are handed out as float.
/// Implementations are immutable after construction and safe to read from several threads.
class TensorSource {
public:
    virtual ~TensorSource() = default;
    virtual std::vector<TensorSpec> list() const = 0;
    virtual std::optional<Shape> shape_of(std::string_view name) const = 0;
    /// The stored type as the format spells it ("BF16", "Q4_1").
    virtual std::string stored_type(std::string_view name) const = 0;
    /// Copies rows [first_row, first_row + rows) of a tensor seen as [shape[0], rest] into `out` (rows * rest values).
    /// Throws Error naming file and tensor on values that are not finite.
    virtual void read_rows(std::string_view name, std::int64_t first_row, std::int64_t rows,
                           std::span<float> out) const = 0;
    /// Whether the tensor is stored as codes of four bits in groups of 32 along its rows.
    virtual bool has_codes(std::string_view name) const;
    /// Those rows as they are stored, where has_codes: rows * width / 32 groups that say what read_rows reads.
    virtual void read_codes(std::string_view name, std::int64_t first_row, std::int64_t rows,
                            std::span<core::CodeGroup> out) const;
    /// Gives memory back that mapped files take once they are read. They can be read again.
    virtual void release_pages() const {}
};

}  // namespace mha2mla::checkpoint
