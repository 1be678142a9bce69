#include "convert/refit.h"

#include "convert/trial.h"
#include "core/progress.h"
#include "model/decoder_layer.h"
#include "model/mla_attention.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

constexpr double lambda = 0.05;  // the prototype's 0.03 to 0.05 did alike

void add_to(Tensor& sum, const Tensor& value) {
    const auto precise = value.to(torch::kCPU, torch::kFloat64);
    sum = sum.defined() ? sum + precise : precise;
}

}  // namespace

void OutputSums::add(const Tensor& z_TD, const Tensor& y_TE) {
    const auto z_T = z_TD.to(torch::kFloat64);
    const auto y_T = y_TE.to(torch::kFloat64);
    add_to(zz, z_T.t().mm(z_T));
    add_to(zy, z_T.t().mm(y_T));
    add_to(z, z_T.sum(0));
    add_to(y, y_T.sum(0));
    tokens += static_cast<double>(z_TD.size(0));
}

Output fit_output(const OutputSums& sums, const Tensor& weight, double ridge) {
    const auto start = weight.to(torch::kCPU, torch::kFloat64);
    const auto mean_z = sums.z / sums.tokens;
    const auto mean_y = sums.y / sums.tokens;
    const auto about_mean = sums.zz - sums.tokens * torch::outer(mean_z, mean_z);
    const auto wanted = sums.zy - sums.tokens * torch::outer(mean_z, mean_y) - about_mean.mm(start.t());
    const auto floor = 1e-12 * about_mean.diagonal().max().clamp_min(1e-300);
    const auto system = about_mean + torch::diag(ridge * about_mean.diagonal() + floor);
    const auto fitted = start + torch::linalg_solve(system, wanted).t();
    return {.weight = fitted, .bias = mean_y - fitted.mv(mean_z)};
}

OutputRefit::OutputRefit(const checkpoint::Checkpoint& source, const std::vector<std::vector<int>>& windows,
                         torch::Device device, const calibrate::RestOptions& rest)
    : source_(source),
      source_hidden_(calibrate::LayerWalk(source, windows, {}, rest).take_hidden()),
      converted_hidden_(calibrate::LayerWalk(source, windows, {}, rest).take_hidden()) {
    options_.device = device;
}

void OutputRefit::apply(const checkpoint::ModelConfig& target, int layer, ConvertedAttention& converted,
                        const std::stop_token& stop) {
    auto of_source = model::load_layer(source_, layer, options_);
    auto module = make_converted_layer(source_, target, layer, converted, options_);
    auto& attention = dynamic_cast<model::MlaAttentionImpl&>(module->attention());
    const auto at = [&](const calibrate::HiddenStates& states, std::size_t window) {
        core::throw_if_stopped(stop);
        return states.get(window).to(options_.device);
    };
    const auto sinks = target.mla().sink_tokens;
    OutputSums sums;
    for (std::size_t window = 0; window < source_hidden_.windows(); ++window) {
        const auto wanted = of_source->attend(at(source_hidden_, window));
        const auto stream = at(converted_hidden_, window);
        const auto z = attention.heads(module->attention_input(stream));
        sums.add(z[0].slice(0, sinks), (wanted - stream)[0].slice(0, sinks));
        source_hidden_.replace(window, of_source->feed_forward(wanted));
    }
    auto& weight = converted.tensors.at("self_attn.o_proj.weight");
    const auto [fitted, bias] = fit_output(sums, weight, lambda);
    weight = fitted;
    converted.tensors.at("self_attn.o_proj.bias") = bias;
    module = make_converted_layer(source_, target, layer, converted, options_);
    for (std::size_t window = 0; window < converted_hidden_.windows(); ++window) {
        converted_hidden_.replace(window, module(at(converted_hidden_, window)));
    }
}

}  // namespace mha2mla::convert
