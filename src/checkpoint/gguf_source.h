#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/gguf_file.h"
#include "checkpoint/model_config.h"
#include "checkpoint/tensors.h"
#include "core/file.h"

namespace mha2mla::checkpoint {

/// The tensors of a llama GGUF file under Hugging Face names. llama.cpp stores the rows of each q and k head pair by
/// pair (0, P, 1, P + 1, ...; P = head_dim / 2); here they are back in half-split order (0, 1, ..., P, P + 1, ...).
/// Points into the file's bytes.
class GgufSource : public TensorSource {
public:
    /// `mapping`: where the bytes lie if they are mapped; else they must outlive the source. Throws Error naming a
    /// tensor that has no place in a llama model.
    GgufSource(const GgufFile& file, const ModelConfig& config, std::shared_ptr<const core::MappedFile> mapping);

    std::vector<TensorSpec> list() const override;
    std::optional<Shape> shape_of(std::string_view name) const override;
    std::string stored_type(std::string_view name) const override;
    void read_rows(std::string_view name, std::int64_t first_row, std::int64_t rows,
                   std::span<float> out) const override;
    bool has_codes(std::string_view name) const override;
    void read_codes(std::string_view name, std::int64_t first_row, std::int64_t rows,
                    std::span<core::CodeGroup> out) const override;
    void release_pages() const override;

private:
    struct Entry {
        GgufTensor tensor;
        bool interleaved = false;
    };

    void check(const Entry& entry) const;
    const Entry& find(std::string_view name) const;
    /// Where row `row` of the half-split order is stored.
    std::int64_t stored_row(std::int64_t row) const;
    struct RowRange {
        std::string_view name;
        std::int64_t first;
        std::int64_t rows;
    };
    /// Calls convert(data, blocks, values of `out`) for runs of stored rows, in the order asked for.
    template <typename Value, typename Convert>
    void each_run(const RowRange& range, std::span<Value> out, Convert convert) const;

    std::shared_ptr<const core::MappedFile> mapping_;
    std::string where_;
    std::int64_t head_dim_ = 0;
    std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace mha2mla::checkpoint
