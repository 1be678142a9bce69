#include "runtime/attention.h"

namespace mha2mla::runtime {
namespace {

/// Column of Workspace::projected where the latent starts, after q.
std::int64_t latent_column(const AttentionShape& shape) { return shape.heads * shape.head_dim; }

/// Rotates the rotary keys of tokens [begin, end) where they lie, each head by its own frequencies.
void rotate_rotary_keys(const AttentionInput& input, const MlaWeights& weights, const Compute& compute,
                        std::int64_t begin, std::int64_t end) {
    const std::int64_t dr = weights.qk_rope_head_dim;
    float* keys = compute.workspace.projected.data() + input.projected_offset() + begin * input.projected_width +
                  latent_column(input.shape) + weights.kv_lora_rank;
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
                     {.x = compute.workspace.projected.data() + input.projected_offset() + latent_column(input.shape),
                      .x_stride = input.projected_width,
                      .plane = cache::latent_plane,
                      .begin = begin,
                      .end = end},
                     compute.kernels);
}

/// Chunks that follow each other and take the same form go together.
void attend_in_forms(const AttentionBatch& batch, const MlaWeights& weights, AttentionForm asked,
                     const Compute& compute) {
    for (std::size_t first = 0, end = 0; first < batch.chunks.size(); first = end) {
        const AttentionForm form = choose_form(asked, batch.chunks[first].tokens);
        for (end = first + 1; end < batch.chunks.size(); ++end) {
            if (choose_form(asked, batch.chunks[end].tokens) != form) break;
        }
        const AttentionBatch run = batch.only(batch.chunks.subspan(first, end - first));
        if (form == AttentionForm::expanded) {
            attend_expanded(run, weights, compute);
        } else {
            attend_absorbed(run, weights, compute);
        }
    }
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

void mla_attention(const AttentionBatch& batch, const MlaWeights& weights, AttentionForm form, const Compute& compute) {
    parallel_rows(batch.chunks, batch.projected_width, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      rotate_rotary_keys(batch.of(chunk), weights, compute, begin, end);
                      store_latents(batch.of(chunk), compute, begin, end);
                  });
    const bool has_sinks = batch.chunks.front().cache.pool().sink_tokens() > 0;
    if (has_sinks) {
        for (const Chunk& chunk : batch.chunks) store_sinks(batch.of(chunk), weights, compute);
    }
    if (!weights.position_factors.empty()) {
        const std::int64_t d = batch.shape.head_dim;
        rotate_query(batch,
                     {.pairs = d / 2,
                      .factors = &weights.position_factors,
                      .out = compute.workspace.position_query.data(),
                      .out_stride = d},
                     compute);
    }
    attend_in_forms(batch, weights, form, compute);
    seal_full_pages(batch, compute);
    if (has_sinks) attend_sinks(batch, compute);
    gather_heads(compute.workspace.grouped.data(), batch, compute);
}

}  // namespace mha2mla::runtime
