#include "calibrate/pair_norms.h"

#include "core/error.h"

namespace mha2mla::calibrate {
namespace {

/// x [batch, tokens, heads, 2P] -> sum over batch and tokens of each pair's norm, [heads, P] in fp64.
torch::Tensor summed_norms(const torch::Tensor& x) {
    const auto halves = x.to(torch::kFloat32).chunk(2, -1);
    return torch::hypot(halves[0], halves[1])
        .sum(torch::IntArrayRef({0, 1}), /*keepdim=*/false, torch::kFloat64)
        .to(torch::kCPU);
}

}  // namespace

void PairNormSum::add(const torch::Tensor& q_BTHd, const torch::Tensor& k_BTGd) {
    const auto query = summed_norms(q_BTHd);
    const auto key = summed_norms(k_BTGd);
    query_ = tokens_ == 0 ? query : query_ + query;
    key_ = tokens_ == 0 ? key : key_ + key;
    tokens_ += q_BTHd.size(0) * q_BTHd.size(1);
}

PairNorms PairNormSum::mean() const {
    core::invariant(tokens_ > 0, "a mean is taken over at least one token");
    const auto count = static_cast<double>(tokens_);
    return {.query_HP = query_ / count, .key_GP = key_ / count};
}

PairNorms measure_pair_norms(LayerWalk& walk, const std::stop_token& stop) {
    PairNormSum sum;
    const auto add = [&](model::GqaAttentionImpl& attention, const torch::Tensor& x_BTE) {
        sum.add(attention.queries(x_BTE), attention.keys(x_BTE));
    };
    walk.step({add}, stop);
    return sum.mean();
}

}  // namespace mha2mla::calibrate
