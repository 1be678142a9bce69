#include "runtime/attention.h"

namespace mha2mla::runtime {
namespace {

/// Column of Workspace::projected where the latent starts, after q.
std::int64_t latent_column(const AttentionShape& shape) { return shape.heads * shape.head_dim; }

/// Rotates the rotary keys of tokens [begin, end) where they lie, each head by its own frequencies.
void rotate_rotary_keys(const AttentionInput& input, const MlaWeights& weights, const Compute& compute,
                        std::int64_t begin, std::int64_t end) {
    const std::int64_t dr = weights.qk_rope_head_dim;
    float* keys = compute.workspace.projected.data() + begin * input.projected_width + latent_column(input.shape) +
                  weights.kv_lora_rank;
    for (const auto& frequencies : weights.rope_pairs) {
        compute.kernels.rope({.x = keys,
                              .x_row_stride = input.projected_width,
                              .x_head_stride = dr,
                              .half = dr / 2,
                              .y = keys,
                              .y_row_stride = input.projected_width,
                              .y_head_stride = dr,
                              .rows = end - begin,
                              .heads = 1,
                              .pairs = dr / 2,
                              .frequencies = frequencies.data(),
                              .table = input.rope.data(),
                              .table_pairs = input.rope.pairs(),
                              .first_position = input.chunk.first_position + begin});
        keys += dr;
    }
}

void store_latents(const AttentionInput& input, const Compute& compute, std::int64_t begin, std::int64_t end) {
    store_cache_rows(input,
                     {.x = compute.workspace.projected.data() + latent_column(input.shape),
                      .x_stride = input.projected_width,
                      .plane = cache::latent_plane,
                      .begin = begin,
                      .end = end},
                     compute.kernels);
}

}  // namespace

/// Per head, absorbed attention costs 2 R + K dr multiply-adds for each (query, key) and the expanded form only
/// dn + dr + dv, but it first rebuilds every key of the context, R (dn + dv) each, once a chunk. The rebuilding pays
/// once enough queries share it; with R about dn + dv that is some tens of queries.
AttentionForm choose_form(AttentionForm asked, std::int64_t chunk_tokens) {
    constexpr std::int64_t queries_that_pay = 32;
    if (asked != AttentionForm::automatic) return asked;
    return chunk_tokens >= queries_that_pay ? AttentionForm::expanded : AttentionForm::absorbed;
}

void mla_attention(const AttentionInput& input, const MlaWeights& weights, AttentionForm form, const Compute& compute) {
    const std::int64_t tokens = input.chunk.tokens;
    parallel_ranges(compute.pool, tokens, tokens * input.projected_width,
                    [&](int, std::int64_t begin, std::int64_t end) {
                        rotate_rotary_keys(input, weights, compute, begin, end);
                        store_latents(input, compute, begin, end);
                    });
    const bool has_sinks = input.chunk.cache.pool().sink_tokens() > 0;
    if (has_sinks) store_sinks(input, weights, compute);
    if (!weights.position_factors.empty()) {
        const std::int64_t d = input.shape.head_dim;
        rotate_query(input,
                     {.pairs = d / 2,
                      .factors = &weights.position_factors,
                      .out = compute.workspace.position_query.data(),
                      .out_stride = d},
                     compute);
    }
    if (choose_form(form, tokens) == AttentionForm::expanded) {
        attend_expanded(input, weights, compute);
    } else {
        attend_absorbed(input, weights, compute);
    }
    seal_full_pages(input, compute);
    if (has_sinks) attend_sinks(input, compute);
    gather_heads(compute.workspace.grouped.data(), input, compute);
}

}  // namespace mha2mla::runtime
