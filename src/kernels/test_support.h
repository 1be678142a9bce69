#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/coded_weights.h"
#include "kernels/kernels.h"

/// What the kernels' tests share: random data, poisoned memory, and tolerances by dtype.
namespace mha2mla::kernels::test {

inline constexpr float poison = std::numeric_limits<float>::quiet_NaN();

inline std::vector<float> random_floats(std::int64_t count, std::uint64_t seed, double range = 1) {
    core::Random random(seed);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>((2 * random.uniform() - 1) * range);
    return values;
}

/// Memory on a 64-byte boundary, filled with NaN whether it is read as float or as bf16.
class PoisonedBytes {
public:
    explicit PoisonedBytes(std::size_t bytes) : storage_(bytes + 64, std::byte{0xff}) {}
    void* data() {
        void* at = storage_.data();
        std::size_t space = storage_.size();
        return std::align(64, 1, at, space);
    }

private:
    std::vector<std::byte> storage_;
};

/// A bf16 matrix in codes, in memory that lies in `bytes` from then on.
inline PackedMatrix code(const PackedMatrix& weights, PoisonedBytes& bytes) {
    std::vector<CodedTile> heads;
    for (std::int64_t tile = 0; tile < weights.tiles(); ++tile) heads.push_back(choose_codes(weights, tile));
    PackedMatrix coded{.format = WeightFormat::coded_bf16, .outputs = weights.outputs, .inputs = weights.inputs};
    coded.exceptions = number_exceptions(heads);
    const std::size_t count = packed_bytes(coded.format, coded.outputs, coded.inputs, coded.exceptions);
    bytes = PoisonedBytes(count);
    std::memset(bytes.data(), 0, count);
    coded.data = bytes.data();
    for (std::int64_t tile = 0; tile < weights.tiles(); ++tile) {
        code_tile({weights, tile, heads[static_cast<std::size_t>(tile)], bytes.data()});
    }
    return coded;
}

/// The value that an element of this dtype holds.
inline double stored(float x, core::DType dtype) {
    return static_cast<double>(dtype == core::DType::f32 ? x : core::to_float(core::to_bf16(x)));
}

inline void store(float x, core::DType dtype, void* at) {
    if (dtype == core::DType::f32) {
        std::memcpy(at, &x, sizeof x);
    } else {
        const core::bf16 half = core::to_bf16(x);
        std::memcpy(at, &half, sizeof half);
    }
}

/// Relative rounding error of one operand: products may round activations to the dtype of what they meet.
inline double epsilon(core::DType dtype) { return dtype == core::DType::f32 ? 0x1p-24 : 0x1p-9; }

inline std::string label(Isa isa, core::DType dtype, std::initializer_list<std::int64_t> sizes) {
    std::string text = std::string(name_of(isa)) + " " + std::string(core::name_of(dtype));
    for (const std::int64_t size : sizes) text += " " + std::to_string(size);
    return text;
}

}  // namespace mha2mla::kernels::test
