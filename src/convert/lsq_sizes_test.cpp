#include "convert/lsq_sizes.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

namespace mha2mla::convert {
namespace {

/// Errors that fall by `decay` an element, of a layer that loses `rotation` with no rotary component and none with one.
LayerErrors layer(double scale, double decay, double rotation = 0) {
    std::vector<double> by_rank;
    for (int rank = 0; rank <= 64; ++rank) by_rank.push_back(scale * std::exp(-decay * rank));
    return {{{.components = 0, .lost_rotation = rotation, .lost_directions = by_rank},
             {.components = 1, .lost_rotation = 0, .lost_directions = by_rank}}};
}

double error_of(const std::vector<LayerSize>& sizes) {
    double sum = 0;
    for (const auto& size : sizes) sum += size.error;
    return sum;
}

TEST(LayerSizes, ComponentsAreKeptWhereTheyAreWorthTheirElements) {
    EXPECT_EQ(divide(layer(1, 0.1), 20).components, 0);
    EXPECT_EQ(divide(layer(1, 0.1, 100), 20).components, 1);
    EXPECT_TRUE(std::isinf(divide(layer(1, 0.1), 67).error)) << "ranks end at 64";
}

/// Against every division of the same elements in the same steps.
TEST(LayerSizes, AreTheBestDivisionOfTheCache) {
    const std::vector<LayerErrors> layers{layer(1, 0.05), layer(4, 0.05, 30), layer(0.2, 0.1)};
    const auto chosen = allocate(layers, 20);
    int elements = 0;
    for (const auto& size : chosen) elements += size.elements;
    EXPECT_LE(elements, 60);
    double best = std::numeric_limits<double>::infinity();
    for (int a = 12; a <= 33; a += 4) {
        for (int b = 12; b <= 33 && a + b <= 48; b += 4) {
            const int c = std::min(60 - a - b, 33) / 4 * 4;
            best = std::min(best, error_of({divide(layers[0], a), divide(layers[1], b), divide(layers[2], c)}));
        }
    }
    EXPECT_NEAR(error_of(chosen), best, 1e-12);
    EXPECT_GT(chosen[1].elements, chosen[2].elements);
}

TEST(LayerSizes, OfEqualLayersAreEqual) {
    for (const auto& size : allocate({layer(1, 0.05), layer(1, 0.05), layer(1, 0.05)}, 20)) {
        EXPECT_EQ(size.elements, 20);
    }
}

}  // namespace
}  // namespace mha2mla::convert
