#include "convert/latent_rotation.h"

#include <cmath>
#include <gtest/gtest.h>

namespace mha2mla::convert {
namespace {

using torch::Tensor;

double largest(const Tensor& values) { return values.abs().max().item<double>(); }

double distance_from_orthogonal(const Tensor& matrix) {
    return largest(matrix.mm(matrix.t()) - torch::eye(matrix.size(0), torch::kFloat64));
}

TEST(LatentRotation, IsOrthogonalAtEverySize) {
    for (std::int64_t size = 1; size <= 200; ++size) {
        const auto matrix = latent_rotation(size, 3);
        ASSERT_EQ(matrix.sizes(), (torch::IntArrayRef{size, size}));
        EXPECT_LT(distance_from_orthogonal(matrix), 1e-12) << size;
    }
    EXPECT_LT(distance_from_orthogonal(latent_rotation(1536, 3)), 1e-12);
}

/// Sylvester, Paley's first (12, 20, 24, 44) and second (28, 36, 76) construction, and doubled ones (40, 56).
TEST(LatentRotation, SpreadsEvenlyWhereThereIsAHadamardMatrix) {
    for (const std::int64_t size :
         {1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 76, 64, 96, 112, 128, 512}) {
        const auto magnitudes = latent_rotation(size, 3).abs() * std::sqrt(static_cast<double>(size));
        EXPECT_LT(largest(magnitudes - 1), 1e-12) << size;
    }
}

/// 92 = 4 x 23 and 116 = 4 x 29 have Hadamard matrices, too, but none of these constructions.
TEST(LatentRotation, SpreadsNearlyEvenlyAtOtherSizes) {
    for (const std::int64_t size : {6, 10, 18, 50, 92, 116, 118}) {
        const auto magnitudes = latent_rotation(size, 3).abs() * std::sqrt(static_cast<double>(size));
        EXPECT_LT(largest(magnitudes), std::sqrt(2.0) + 1e-12) << size;
    }
}

TEST(LatentRotation, IsTheSameForASeed) {
    EXPECT_TRUE(torch::equal(latent_rotation(92, 5), latent_rotation(92, 5)));
    EXPECT_FALSE(torch::equal(latent_rotation(92, 5), latent_rotation(92, 6)));
}

TEST(LatentRotation, ChangesTheLatentAndNothingThatIsMadeOfIt) {
    torch::manual_seed(4);
    const auto down = torch::randn({12 + 4, 10});  // 12 of the latent, 4 of the rotary key
    const auto copy = down.clone();
    const auto bias = torch::randn({12 + 4});
    const auto up = torch::randn({6, 12});
    ConvertedAttention converted;
    converted.tensors["self_attn.kv_a_proj_with_mqa.weight"] = down;
    converted.tensors["self_attn.kv_a_proj_with_mqa.bias"] = bias;
    converted.tensors["self_attn.kv_b_proj.weight"] = up;
    rotate_latent(converted, 12, 1, 9);

    const auto& turned = converted.tensors;
    const auto input = torch::randn({10}, torch::kFloat64);
    const auto cached = [&](const Tensor& weight, const Tensor& constant) {
        return weight.to(torch::kFloat64).mv(input) + constant;
    };
    const auto before = cached(down, bias);
    const auto after =
        cached(turned.at("self_attn.kv_a_proj_with_mqa.weight"), turned.at("self_attn.kv_a_proj_with_mqa.bias"));
    EXPECT_LT(largest(after.slice(0, 12) - before.slice(0, 12)), 1e-14) << "the rotary key stays";
    EXPECT_GT(largest(after.slice(0, 0, 12) - before.slice(0, 0, 12)), 0.1) << "the test must see a rotation";
    EXPECT_LT(largest(turned.at("self_attn.kv_b_proj.weight").mv(after.slice(0, 0, 12)) -
                      up.to(torch::kFloat64).mv(before.slice(0, 0, 12))),
              1e-12);
    EXPECT_TRUE(torch::equal(down, copy)) << "tensors that may be the source's are not written to";
}

}  // namespace
}  // namespace mha2mla::convert
