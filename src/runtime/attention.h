#pragma once

#include "runtime/chunk.h"
#include "runtime/decoder.h"
#include "runtime/form_costs.h"
#include "runtime/weights.h"

namespace mha2mla::runtime {

/// Grouped-query attention: caches the rotated keys and the values of the chunks; each attends over all of its
/// sequence.
void gqa_attention(const AttentionBatch& batch, const Compute& compute);

/// Latent attention: caches latents and rotated rotary keys of the chunks, then attends in the form that `form` names
/// (automatic: each chunk in the cheaper one).
void mla_attention(const AttentionBatch& batch, const MlaWeights& weights, AttentionForm form, const Compute& compute);

/// What the cost of a layer's attention depends on.
LatentSizes latent_sizes(const AttentionShape& shape, const MlaWeights& weights);

/// The two forms of latent attention, after the chunks are cached. Their result, [G, tokens, group, dv] of each chunk,
/// goes to Workspace::grouped; where there are sinks, it leaves them out, and the log of each row's sum goes to
/// Workspace::part_max.
void attend_absorbed(const AttentionBatch& batch, const MlaWeights& weights, const Compute& compute);
void attend_expanded(const AttentionBatch& batch, const MlaWeights& weights, const Compute& compute);

/// Caches the full keys and values of those tokens of the chunk that are sinks.
void store_sinks(const AttentionInput& input, const MlaWeights& weights, const Compute& compute);
/// Attends to the sinks and joins the results to that of the latents in Workspace::grouped.
void attend_sinks(const AttentionBatch& batch, const Compute& compute);

/// Picks the un-rotated part of every query: pairs ascending, times their factors, first halves, then second halves.
/// Writes [dn] to out + ((g * tokens + t) * group + h) * out_stride for head h of KV head g, out being where the chunk
/// starts.
void pick_unrotated_query(const AttentionBatch& batch, const MlaWeights& weights, float* out, std::int64_t out_stride,
                          const Compute& compute);

/// A part of every query that rotates with the query's position, and where it goes: in the order above.
struct RotatedPart {
    std::int64_t pairs = 0;
    const std::vector<std::vector<std::int32_t>>* pairs_of_heads = nullptr;  // [G], or one for all; null: all, in order
    const std::vector<float>* factors = nullptr;                             // [H, pairs, 2]; null or empty: 1
    float* out = nullptr;
    std::int64_t out_stride = 0;
    std::int64_t own_column = 0;       // of Workspace::projected: rows of its own [H, 2 pairs]; 0: picked out of q
    std::int64_t kv_heads_in_row = 1;  // KV heads that share a key: each writes at its place in the key, 2 pairs
};

void rotate_query(const AttentionBatch& batch, const RotatedPart& part, const Compute& compute);

}  // namespace mha2mla::runtime
