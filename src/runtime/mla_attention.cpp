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

/// Every group's latent and rotary keys into its plane.
void store_latents(const AttentionInput& input, const MlaWeights& weights, const Compute& compute, std::int64_t begin,
                   std::int64_t end) {
    const float* const latents =
        compute.workspace.projected.data() + input.projected_offset() + latent_column(input.shape);
    const std::int64_t rank = weights.head_rank();
    const std::int64_t rotary = weights.row_width() - rank;
    for (int group = 0; group < static_cast<int>(weights.latent_groups); ++group) {
        CacheRows rows{.x = latents + group * rank,
                       .x_stride = input.projected_width,
                       .plane = cache::latent_plane(group),
                       .columns = rank,
                       .begin = begin,
                       .end = end};
        store_cache_rows(input, rows, compute.kernels);
        rows.x = latents + weights.kv_lora_rank + group * rotary;
        rows.first_column = rank;
        rows.columns = rotary;
        store_cache_rows(input, rows, compute.kernels);
    }
}

/// The form that is asked for, or the one that is cheaper for a chunk.
AttentionForm form_of(const AttentionBatch& batch, const Chunk& chunk, const MlaWeights& weights, AttentionForm asked,
                      const Compute& compute) {
    if (asked != AttentionForm::automatic) return asked;
    return cheaper_form(latent_sizes(batch.shape, weights), {.queries = chunk.tokens, .keys = chunk.keys()},
                        form_costs(compute.kernels.isa));
}

/// Chunks that follow each other and take the same form go together.
void attend_in_forms(const AttentionBatch& batch, const MlaWeights& weights, AttentionForm asked,
                     const Compute& compute) {
    for (std::size_t first = 0, end = 0; first < batch.chunks.size(); first = end) {
        const AttentionForm form = form_of(batch, batch.chunks[first], weights, asked, compute);
        for (end = first + 1; end < batch.chunks.size(); ++end) {
            if (form_of(batch, batch.chunks[end], weights, asked, compute) != form) break;
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

LatentSizes latent_sizes(const AttentionShape& shape, const MlaWeights& weights) {
    return {.heads = shape.heads,
            .kv_heads = shape.kv_heads,
            .head_rank = weights.head_rank(),
            .rotary_width = weights.row_width() - weights.head_rank(),
            .key_width = weights.qk_nope_head_dim + weights.qk_rope_head_dim,
            .nope_width = weights.qk_nope_head_dim,
            .value_width = shape.value_dim};
}

void mla_attention(const AttentionBatch& batch, const MlaWeights& weights, AttentionForm form, const Compute& compute) {
    parallel_rows(batch.chunks, batch.projected_width, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      rotate_rotary_keys(batch.of(chunk), weights, compute, begin, end);
                      store_latents(batch.of(chunk), weights, compute, begin, end);
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
