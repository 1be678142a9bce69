#include "model/frequencies.h"

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

Angles angles_of(const torch::Tensor& frequencies, std::int64_t tokens) {
    const auto positions = torch::arange(tokens, frequencies.options()).view({-1, 1, 1});
    const auto angles = positions * frequencies;
    return {angles.cos(), angles.sin()};
}

}  // namespace mha2mla::model
