#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <variant>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "runtime/weight_store.h"

namespace mha2mla::runtime {

// Dimensions as in docs/checkpoint.md: H query heads, G KV heads, d head width, E hidden width, R latent width,
// L groups of KV heads with R / L of it each, K rotary key heads of width dr, dn un-rotated width, dv value width.

/// Grouped-query attention. Nothing beyond the projections that both kinds have.
struct GqaWeights {};

/// The parts of latent attention that a layer has beside its projections.
struct MlaWeights {
    std::int64_t kv_lora_rank = 0;       // R
    std::int64_t latent_groups = 1;      // L
    std::int64_t qk_nope_head_dim = 0;   // dn
    std::int64_t qk_rope_head_dim = 0;   // dr
    std::int64_t rope_query_column = 0;  // of the rotary query's own rows in attention_in; 0: none
    std::vector<Matrix> key_up;          // W_uk of each KV head [dn, R / L]: rebuilds keys; empty if dn = 0
    std::vector<Matrix> query_absorb;    // its transpose [R / L, dn]: folds queries into latent space
    std::vector<Matrix> value_up;        // W_uv of each KV head [dv, R / L]
    std::vector<std::vector<std::int32_t>> nope_pairs;  // [G][dn / 2]: source pairs of the un-rotated query
    std::vector<std::vector<std::int32_t>> rope_pairs;  // [K][dr / 2]: source pairs and frequencies
    // Complex factors of the query's pairs, (real, imaginary). Empty: 1, and for the last: no positional part.
    std::vector<float> nope_factors;      // [H, dn / 2, 2]
    std::vector<float> rope_factors;      // [H, dr / 2, 2]
    std::vector<float> position_factors;  // [H, d / 2, 2]: conj(k_mean) of the head's KV head, times the softmax scale
    Linear sink_in;                       // k [G d], v [G d] of the sinks; empty without

    // All that the heads of a group read of a cached token is its row, [R / L of the latent | K / L rotary keys].
    std::int64_t head_rank() const { return kv_lora_rank / latent_groups; }
    std::int64_t rope_keys_of_group() const { return static_cast<std::int64_t>(rope_pairs.size()) / latent_groups; }
    std::int64_t row_width() const { return head_rank() + rope_keys_of_group() * qk_rope_head_dim; }
};

struct LayerWeights {
    std::vector<float> input_norm;           // [E]
    std::vector<float> post_attention_norm;  // [E]
    /// All projections of the attention's input as one matrix. GQA: q [H d], k [G d], v [G d]; MLA: q [H d],
    /// kv_a [R + K dr], and where the rotary query has rows of its own, those [H dr].
    Linear attention_in;
    Linear attention_out;  // o_proj [E, H dv]
    Linear gate;
    Linear up;
    Linear down;
    std::variant<GqaWeights, MlaWeights> attention;

    /// Bytes that one decode step reads (the absorbed form of latent attention, beyond the sinks).
    std::size_t step_bytes() const;
};

struct ModelWeights {
    WeightStore store;
    std::vector<LayerWeights> layers;
    std::vector<float> final_norm;  // [E]
    Matrix output;                  // lm_head [vocab, E]
    Matrix embedding;               // [vocab, E]; the same memory as `output` where the two are tied

    /// Bytes that one decode step reads.
    std::size_t step_bytes() const;
};

struct WeightOptions {
    WeightFormats formats;
    std::filesystem::path packed = {};  ///< a file that save_packed_weights wrote; empty: none
};

/// Reads and packs all weights, row block by row block, or maps those of a packed file.
ModelWeights load_weights(const checkpoint::Checkpoint& model, const WeightOptions& options, core::ThreadPool& pool,
                          core::Progress& progress);

}  // namespace mha2mla::runtime
