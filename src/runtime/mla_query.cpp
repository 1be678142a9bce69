#include "runtime/attention.h"

// The parts of the queries, each picked out of the one q of its head or, for the rotary part, rows of its own. Rows are
// ordered [G, tokens, group] in each chunk.

namespace mha2mla::runtime {
namespace {

/// The pairs of a head, times their factors where there are any: first halves, then second halves.
void pick_pairs(const float* head, std::int64_t half, const std::vector<std::int32_t>& pairs, const float* factors,
                float* out) {
    const std::size_t count = pairs.size();
    for (std::size_t i = 0; i < count; ++i) {
        const float real = head[pairs[i]];
        const float imaginary = head[pairs[i] + half];
        out[i] = factors == nullptr ? real : real * factors[2 * i] - imaginary * factors[2 * i + 1];
        out[i + count] = factors == nullptr ? imaginary : real * factors[2 * i + 1] + imaginary * factors[2 * i];
    }
}

/// The factors of a head, or null where all are 1.
const float* factors_of(const std::vector<float>& factors, std::int64_t pairs, std::int64_t head) {
    return factors.empty() ? nullptr : factors.data() + head * pairs * 2;
}

/// The rotation of the heads of KV head g in all tokens.
kernels::RopeParams rotation(const AttentionInput& input, const RotatedPart& part, std::int64_t g,
                             const Compute& compute) {
    const AttentionShape& shape = input.shape;
    const std::int64_t first_row = input.first_head_row() + g * input.chunk.tokens * shape.group;
    const bool own = part.own_column > 0;
    const std::int64_t width = own ? 2 * part.pairs : shape.head_dim;
    kernels::RopeParams params{
        .x = compute.workspace.projected.data() + input.projected_offset() + part.own_column + g * shape.group * width,
        .x_row_stride = input.projected_width,
        .x_head_stride = width,
        .half = width / 2,
        .y = part.out + first_row * part.out_stride,
        .y_row_stride = shape.group * part.out_stride,
        .y_head_stride = part.out_stride,
        .rows = input.chunk.tokens,
        .heads = shape.group,
        .pairs = part.pairs,
        .factors = part.factors == nullptr ? nullptr : factors_of(*part.factors, part.pairs, g * shape.group),
        .table = input.rope.data(),
        .table_pairs = input.rope.pairs(),
        .first_position = input.chunk.first_position};
    if (part.pairs_of_heads != nullptr) {
        const auto& pairs = (*part.pairs_of_heads)[part.pairs_of_heads->size() == 1 ? 0 : static_cast<std::size_t>(g)];
        params.frequencies = pairs.data();
        params.source_pairs = own ? nullptr : pairs.data();
        params.y += g % part.kv_heads_in_row * 2 * part.pairs;
    }
    return params;
}

}  // namespace

void pick_unrotated_query(const AttentionBatch& batch, const MlaWeights& weights, float* out, std::int64_t out_stride,
                          const Compute& compute) {
    const AttentionShape& shape = batch.shape;
    const auto pick = [&](const AttentionInput& input, std::int64_t token) {
        const float* const q =
            compute.workspace.projected.data() + input.projected_offset() + token * input.projected_width;
        for (std::int64_t head = 0; head < shape.heads; ++head) {
            const std::int64_t g = head / shape.group;
            const std::int64_t row =
                input.first_head_row() + (g * input.chunk.tokens + token) * shape.group + head % shape.group;
            pick_pairs(q + head * shape.head_dim, shape.head_dim / 2, weights.nope_pairs[static_cast<std::size_t>(g)],
                       factors_of(weights.nope_factors, weights.qk_nope_head_dim / 2, head), out + row * out_stride);
        }
    };
    parallel_rows(batch.chunks, shape.heads * shape.head_dim, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      for (std::int64_t token = begin; token < end; ++token) pick(batch.of(chunk), token);
                  });
}

void rotate_query(const AttentionBatch& batch, const RotatedPart& part, const Compute& compute) {
    const AttentionShape& shape = batch.shape;
    parallel_rows(batch.chunks, shape.heads * part.pairs * 2, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
                          auto params = rotation(batch.of(chunk), part, g, compute);
                          params.x += begin * params.x_row_stride;
                          params.y += begin * params.y_row_stride;
                          params.first_position += begin;
                          params.rows = end - begin;
                          compute.kernels.rope(params);
                      }
                  });
}

}  // namespace mha2mla::runtime
