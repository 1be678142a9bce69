#include "model/rotary.h"

#include <cstdint>
#include <numeric>

#include "core/error.h"

namespace mha2mla::model {

torch::Tensor pair_frequencies(const checkpoint::ModelConfig& config, const std::vector<std::vector<int>>& pairs,
                               const ModelOptions& options) {
    const std::vector<double> table = checkpoint::rope_frequencies(config);
    std::vector<double> chosen;
    for (const auto& head : pairs) {
        core::invariant(head.size() == pairs.front().size(), "every head rotates equally many pairs");
        for (const int pair : head) chosen.push_back(table.at(static_cast<std::size_t>(pair)));
    }
    const auto heads = static_cast<std::int64_t>(pairs.size());
    const auto width = static_cast<std::int64_t>(pairs.front().size());
    return torch::tensor(chosen, torch::kFloat64).view({heads, width}).to(options.device, precise_type(options.dtype));
}

torch::Tensor all_frequencies(const checkpoint::ModelConfig& config, const ModelOptions& options) {
    std::vector<int> all(static_cast<std::size_t>(config.rope_pairs()));
    std::iota(all.begin(), all.end(), 0);
    return pair_frequencies(config, {all}, options);
}

torch::Tensor rotate_pairs(const torch::Tensor& x, const torch::Tensor& frequencies) {
    const auto positions = torch::arange(x.size(1), frequencies.options()).view({-1, 1, 1});
    const auto angles = positions * frequencies;  // [tokens, heads or 1, p]
    const auto cosine = angles.cos();
    const auto sine = angles.sin();
    const auto halves = x.to(frequencies.scalar_type()).chunk(2, -1);
    const auto first = halves[0] * cosine - halves[1] * sine;
    const auto second = halves[1] * cosine + halves[0] * sine;
    return torch::cat({first, second}, -1).to(x.scalar_type());
}

torch::Tensor scale_pairs(const torch::Tensor& x, const torch::Tensor& factor) {
    const auto halves = x.chunk(2, -1);
    const auto re = factor.select(-1, 0);
    const auto im = factor.select(-1, 1);
    return torch::cat({halves[0] * re - halves[1] * im, halves[1] * re + halves[0] * im}, -1);
}

}  // namespace mha2mla::model
