#include <algorithm>
#include <cmath>

#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels {
namespace portable {
namespace {

// The part of a row's online softmax that survives from key to key.
struct RowState {
    float max = -INFINITY;
    float sum = 0;
};

template <typename Element>
float dot(const float* q, const Element* key, std::int64_t width) {
    // Separate partial sums: the compiler may use vectors, and the rounding error grows with width / 8.
    float partial[8] = {};
    std::int64_t i = 0;
    for (; i + 8 <= width; i += 8) {
        for (std::int64_t j = 0; j < 8; ++j) partial[j] += q[i + j] * core::to_float(key[i + j]);
    }
    for (; i < width; ++i) partial[0] += q[i] * core::to_float(key[i]);
    float sum = 0;
    for (const float part : partial) sum += part;
    return sum;
}

// Adds one key to a row's softmax: p = exp(score - max), with all that came before rescaled to a new maximum.
template <typename Element>
void add_key(RowState& state, float score, const Element* value, std::int64_t width, float* out) {
    if (score > state.max) {
        const float rescale = std::exp(state.max - score);
        state.sum *= rescale;
        for (std::int64_t i = 0; i < width; ++i) out[i] *= rescale;
        state.max = score;
    }
    const float p = std::exp(score - state.max);
    state.sum += p;
    for (std::int64_t i = 0; i < width; ++i) out[i] += p * core::to_float(value[i]);
}

template <typename Element>
void attend_row(const AttentionParams& params, std::int64_t row) {
    const float* q = params.q + row * params.q_stride;
    const float* bias = params.logit_bias == nullptr ? nullptr : params.logit_bias + row * params.logit_bias_stride;
    float* out = params.out + row * params.out_stride;
    std::fill_n(out, params.value_width, 0.0f);
    RowState state;
    const std::int64_t end = std::min(params.end_key, params.visible[row]);
    for (std::int64_t key = params.first_key; key < end; ++key) {
        const KeyValueBlock& block = params.blocks[key / params.block_tokens];
        const std::int64_t token = key % params.block_tokens;
        const char* keys = static_cast<const char*>(block.keys) + token * params.key_stride_bytes;
        const char* values = static_cast<const char*>(block.values) + token * params.value_stride_bytes;
        const float product = params.scale * dot(q, reinterpret_cast<const Element*>(keys), params.key_width);
        const float score = bias == nullptr ? product : product + bias[key];
        add_key(state, score, reinterpret_cast<const Element*>(values), params.value_width, out);
    }
    params.max[row] = state.max;
    params.sum[row] = state.sum;
}

}  // namespace

void attention(const AttentionParams& params) {
    for (std::int64_t row = 0; row < params.rows; ++row) {
        if (params.dtype == core::DType::f32) {
            attend_row<float>(params, row);
        } else {
            attend_row<core::bf16>(params, row);
        }
    }
}

}  // namespace portable
}  // namespace mha2mla::kernels
