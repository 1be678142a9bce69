#pragma once

#include <cstdint>
#include <random>

namespace mha2mla::core {

/// Seeded random numbers that are the same on every machine (std distributions are not).
class Random {
public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    /// Uniform in [0, 1), 53 random bits.
    double uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }
    /// Uniform in [0, bound).
    std::uint64_t below(std::uint64_t bound) {
        return static_cast<std::uint64_t>(uniform() * static_cast<double>(bound));
    }

private:
    std::mt19937_64 engine_;
};

}  // namespace mha2mla::core
