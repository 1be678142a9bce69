#include <cmath>

#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels::portable {
namespace {

// real + i imaginary becomes its product with a complex factor.
void multiply(const float* factor, float& real, float& imaginary) {
    const float product = real * factor[0] - imaginary * factor[1];
    imaginary = real * factor[1] + imaginary * factor[0];
    real = product;
}

}  // namespace

void rms_norm(const RmsNormParams& params) {
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.width;
        float* y = params.y + row * params.width;
        double squares = 0;
        for (std::int64_t i = 0; i < params.width; ++i) squares += static_cast<double>(x[i]) * x[i];
        const double mean = squares / static_cast<double>(params.width);
        const auto scale = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(params.eps)));
        for (std::int64_t i = 0; i < params.width; ++i) y[i] = x[i] * scale * params.weight[i];
    }
}

void rope(const RopeParams& params) {
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* table = params.table + (params.first_position + row) * params.table_pairs * 2;
        for (std::int64_t head = 0; head < params.heads; ++head) {
            const float* x = params.x + row * params.x_row_stride + head * params.x_head_stride;
            float* y = params.y + row * params.y_row_stride + head * params.y_head_stride;
            for (std::int64_t i = 0; i < params.pairs; ++i) {
                const std::int64_t pair = params.source_pairs != nullptr ? params.source_pairs[i] : i;
                const std::int64_t frequency = params.frequencies != nullptr ? params.frequencies[i] : i;
                const float cosine = table[2 * frequency];
                const float sine = table[2 * frequency + 1];
                float real = x[pair];
                float imaginary = x[pair + params.half];
                if (params.factors != nullptr) {
                    multiply(params.factors + (head * params.pairs + i) * 2, real, imaginary);
                }
                y[i] = real * cosine - imaginary * sine;
                y[i + params.pairs] = real * sine + imaginary * cosine;
            }
        }
    }
}

void turn(const TurnParams& params) {
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * 2 * params.pairs;
        float* y = params.y + row * 2 * params.pairs;
        for (std::int64_t i = 0; i < params.pairs; ++i) {
            const float real = x[i], imaginary = x[i + params.pairs];
            y[i] = real * params.cos[i] + imaginary * params.sin[i];
            y[i + params.pairs] = imaginary * params.cos[i] - real * params.sin[i];
        }
    }
}

void swiglu(const SwiGluParams& params) {
    for (std::int64_t i = 0; i < params.count; ++i) {
        params.y[i] = params.gate[i] / (1.0f + std::exp(-params.gate[i])) * params.up[i];
    }
}

void store_rows(const StoreRowsParams& params) {
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        char* y = static_cast<char*>(params.y) + row * params.y_stride_bytes;
        if (params.dtype == core::DType::f32) {
            auto* floats = reinterpret_cast<float*>(y);
            for (std::int64_t i = 0; i < params.width; ++i) floats[i] = x[i];
        } else {
            auto* halves = reinterpret_cast<core::bf16*>(y);
            for (std::int64_t i = 0; i < params.width; ++i) halves[i] = core::to_bf16(x[i]);
        }
    }
}

void merge(const MergeParams& params) {
    const std::int64_t part_rows = params.part_rows == 0 ? params.rows : params.part_rows;
    for (std::int64_t row = 0; row < params.rows; ++row) {
        float max = -INFINITY;
        for (std::int64_t p = 0; p < params.parts; ++p) max = std::fmax(max, params.max[p * part_rows + row]);
        float total = 0;
        for (std::int64_t p = 0; p < params.parts; ++p) {
            const std::int64_t at = p * part_rows + row;
            if (params.max[at] > -INFINITY) total += params.sum[at] * std::exp(params.max[at] - max);
        }
        if (params.log_sum != nullptr) params.log_sum[row] = max + std::log(total);
        float* out = params.out + row * params.out_stride;
        for (std::int64_t p = 0; p < params.parts; ++p) {
            const std::int64_t at = p * part_rows + row;
            // A part that saw no key has nothing to add; what its memory holds is not read.
            const bool seen = params.max[at] > -INFINITY;
            const float weight = seen ? std::exp(params.max[at] - max) / total : 0.0f;
            const float* partial = params.partial + at * params.width;
            for (std::int64_t i = 0; i < params.width; ++i) {
                out[i] = (p == 0 ? 0.0f : out[i]) + (seen ? weight * partial[i] : 0.0f);
            }
        }
    }
}

}  // namespace mha2mla::kernels::portable
