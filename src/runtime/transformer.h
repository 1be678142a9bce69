#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/page_pool.h"
#include "cache/sequence_cache.h"
#include "checkpoint/model_config.h"
#include "core/function_ref.h"
#include "runtime/attention.h"
#include "runtime/chunk.h"
#include "runtime/compute.h"
#include "runtime/decoder.h"
#include "runtime/position_table.h"
#include "runtime/rope_table.h"
#include "runtime/weights.h"

namespace mha2mla::runtime {

/// The page format of every layer.
std::vector<cache::PageFormat> page_formats(const checkpoint::ModelConfig& config, const cache::CacheFormat& format);

/// What the first tokens of a sequence keep beside their pages.
cache::SinkFormat sink_format(const checkpoint::ModelConfig& config, core::DType dtype);

/// The layers of a model over a cache that the caller owns.
class Transformer {
public:
    /// `positions`: tokens of the longest sequence, whole pages.
    Transformer(const checkpoint::ModelConfig& config, ModelWeights weights, const DecoderOptions& options,
                std::int64_t positions, core::ThreadPool& pool);
    Transformer(const Transformer&) = delete;
    Transformer& operator=(const Transformer&) = delete;

    /// Adds tokens of a sequence to the next batch, up to max_chunk_tokens in all; each sequence once. Both must stay
    /// until forward() has run. Throws Error, and empties the batch, when the cache is full.
    void add(cache::SequenceCache& sequence, std::span<const int> tokens);
    /// Runs the batch through the layers and appends the tokens to their sequences. The rows of the batch are its
    /// tokens in the order they were added.
    void forward() {
        forward([](const LayerStates&) {});
    }
    /// The same, and shows the residual stream on its way. `visit` must not throw.
    void forward(core::FunctionRef<void(const LayerStates&)> visit);
    /// Logits of some rows of the last batch, [rows, vocab]; valid until the next call.
    const float* logits(std::span<const std::int64_t> rows);

    const ModelWeights& weights() const { return weights_; }

private:
    void embed();
    void list_visible_keys();
    void run_attention(int layer);
    void normalize(const float* x, std::int64_t rows, const std::vector<float>& weight);
    void run_mlp(int layer);

    checkpoint::ModelConfig config_;
    ModelWeights weights_;
    AttentionForm form_;
    AttentionShape attention_shape_;
    RopeTable rope_;
    std::optional<PositionTable> positions_;  // where the model has a positional part
    Workspace workspace_;
    Compute compute_;
    std::vector<Chunk> chunks_;  // of the batch
    std::int64_t tokens_ = 0;    // of the batch
};

}  // namespace mha2mla::runtime
