#include <algorithm>
#include <cmath>

#include "kernels/cpu/coded_rows.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/scratch.h"

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

float score_of(const AttentionParams& params, std::int64_t row, std::int64_t key, float product) {
    if (params.logit_bias == nullptr) return params.scale * product;
    const std::int64_t token = key % params.logit_bias_block_tokens;
    const std::int64_t block = key / params.logit_bias_block_tokens - params.logit_bias_first_block;
    const float* const of_block = params.logit_bias + block * params.logit_bias_block_stride;
    return params.scale * product + of_block[row * params.logit_bias_stride + token];
}

template <typename Element>
void add_exact_key(const AttentionParams& params, std::int64_t row, std::int64_t key, RowState& state) {
    const KeyValueBlock& block = params.blocks[key / params.block_tokens];
    const std::int64_t token = key % params.block_tokens;
    const char* keys = static_cast<const char*>(block.keys) + token * params.key_stride_bytes;
    const char* values = static_cast<const char*>(block.values) + token * params.value_stride_bytes;
    const float product =
        dot(params.q + row * params.q_stride, reinterpret_cast<const Element*>(keys), params.key_width);
    add_key(state, score_of(params, row, key, product), reinterpret_cast<const Element*>(values), params.value_width,
            params.out + row * params.out_stride);
}

// De-quantizes the key and the value into the scratch first.
void add_sealed_key(const AttentionParams& params, std::int64_t row, std::int64_t key, RowState& state) {
    const KeyValueBlock& block = params.blocks[key / params.block_tokens];
    const std::int64_t token = key % params.block_tokens;
    const AttentionScratch parts = attention_scratch(params.key_width, params.value_width);
    auto* const keys = reinterpret_cast<float*>(static_cast<char*>(params.scratch) + parts.keys);
    auto* const values = reinterpret_cast<float*>(static_cast<char*>(params.scratch) + parts.values);
    const auto load = [&](const CodedRows& rows, const void* from, float* to) {
        for (std::int64_t i = 0; i < rows.width; ++i) {
            to[i] = coded_element(rows, static_cast<const char*>(from), token, i);
        }
    };
    load(params.sealed.keys[0], block.keys, keys);
    load(params.sealed.keys[1], block.keys, keys + params.sealed.keys[0].width);
    load(params.sealed.values, block.values, values);
    const float product = dot(params.q + row * params.q_stride, keys, params.key_width);
    add_key(state, score_of(params, row, key, product), values, params.value_width,
            params.out + row * params.out_stride);
}

template <typename Element>
void attend_row(const AttentionParams& params, std::int64_t row) {
    RowState state;
    if (params.continues) {
        state = {params.max[row], params.sum[row]};
    } else {
        std::fill_n(params.out + row * params.out_stride, params.value_width, 0.0f);
    }
    const std::int64_t end = std::min(params.end_key, params.visible[row]);
    for (std::int64_t key = params.first_key; key < end; ++key) {
        if (params.blocks[key / params.block_tokens].sealed) {
            add_sealed_key(params, row, key, state);
        } else {
            add_exact_key<Element>(params, row, key, state);
        }
    }
    params.max[row] = state.max;
    params.sum[row] = state.sum;
}

}  // namespace

void load_rows(const LoadRowsParams& params) {
    std::int64_t first = 0;
    for (const CodedRows& part : params.parts) {
        for (std::int64_t row = 0; row < params.rows; ++row) {
            for (std::int64_t i = 0; i < part.width; ++i) {
                params.y[row * params.y_stride + first + i] =
                    coded_element(part, static_cast<const char*>(params.block), params.first_row + row, i);
            }
        }
        first += part.width;
    }
}

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
