#include "convert/deepseek_shape.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "convert/lsq_method.h"

namespace mha2mla::convert {
namespace {

constexpr std::size_t tried = 3;  // alternatives that a trial compares

/// Frequencies f[0], f[step], f[2 step], ... are 1, r, r², ...
bool is_geometric(const std::vector<double>& frequencies, const std::vector<int>& pairs) {
    const auto at = [&](std::size_t i) { return frequencies[static_cast<std::size_t>(pairs[i])]; };
    const double ratio = pairs.size() > 1 ? at(1) : 1;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        const double expected = std::pow(ratio, static_cast<double>(i));
        if (!(std::abs(at(i) - expected) <= 1e-6 * expected)) return false;
    }
    return true;
}

Plan with_pairs(Plan plan, const std::vector<int>& pairs) {
    auto& mla = std::get<checkpoint::MlaConfig>(plan.target.attention);
    const int rope = 2 * static_cast<int>(pairs.size());
    const auto layers = mla.kv_lora_rank.size();
    plan.options.lsq.rope_components = rope / 2;
    mla.kv_lora_rank.assign(layers, lsq_rank(plan.source, plan.options, rope / 2));
    mla.qk_rope_head_dim.assign(layers, rope);
    mla.rope_pairs.assign(layers, {pairs});
    return plan;
}

/// Every list of pairs that a plan may have: 1, 2, 4, ... of them at 1, 2, 4, ... apart.
std::vector<std::vector<int>> possible_pairs(const Plan& plan) {
    if (plan.options.lsq.rope_components) return geometric_pairs(plan.source, *plan.options.lsq.rope_components);
    const int most = std::min(plan.source.rope_pairs(), plan.target.cached_elements(0) / 3);
    std::vector<std::vector<int>> all;
    for (int components = 1; components <= most; components *= 2) {
        for (auto& pairs : geometric_pairs(plan.source, components)) all.push_back(std::move(pairs));
    }
    return all;
}

/// The same cache in the form that loses least by these statistics.
std::vector<Alternative> without_restriction(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                             const std::stop_token& stop) {
    Plan free = plan;
    free.options.lsq.deepseek_shape = false;
    free.options.lsq.by_layer = true;
    free.options.lsq.rope_components.reset();
    free.target.attention_bias = true;
    std::get<checkpoint::MlaConfig>(free.target.attention).rope_pairs.assign(free.target.mla().kv_lora_rank.size(), {});
    auto alternatives = alternatives_of_lsq(free, evidence, progress, stop);
    alternatives.erase(alternatives.begin(), alternatives.end() - 1);
    alternatives[0].name = "free pairs and sizes";
    alternatives[0].eligible = false;
    return alternatives;
}

}  // namespace

std::vector<std::vector<int>> geometric_pairs(const checkpoint::ModelConfig& source, int components) {
    const auto frequencies = checkpoint::rope_frequencies(source);
    std::vector<std::vector<int>> found;
    for (int step = 1; (components - 1) * step < source.rope_pairs(); step *= 2) {
        std::vector<int> pairs;
        for (int i = 0; i < components; ++i) pairs.push_back(i * step);
        if (is_geometric(frequencies, pairs)) found.push_back(pairs);
        if (components == 1) break;
    }
    return found;
}

void restrict_to_deepseek_shape(Plan& plan) {
    if (plan.source.attention_bias) {
        reject("--export-shape", "stock engines load no biases of this kind",
               "a model whose attention has none, or --export-shape any", "attention_bias: true");
    }
    const auto possible = possible_pairs(plan);
    if (possible.empty()) {
        reject("--export-shape", "no such rotary pairs turn by the powers of one base",
               "fewer --rope-components, or --export-shape any",
               plan.source.rope_scaling ? "scaled frequencies" : "more components than pairs");
    }
    const auto asked = plan.options.lsq.rope_components;
    plan = with_pairs(plan, possible.front());
    plan.options.lsq.rope_components = asked;  // where it is open, a trial chooses among the possible pairs
    auto& mla = std::get<checkpoint::MlaConfig>(plan.target.attention);
    mla.q_rope_factor = true;
    plan.target.attention_bias = false;
}

std::vector<Alternative> alternatives_of_deepseek_shape(const Plan& plan, const Evidence& evidence,
                                                        core::Progress& progress, const std::stop_token& stop) {
    const auto possible = possible_pairs(plan);
    const auto measure = [&](const LayerTask& task) {
        const auto layer = make_lsq_layer(task);
        LayerErrors errors;
        for (const auto& pairs : possible) {
            errors.choices.push_back(errors_of_choice(layer, *task.moments, components_of(layer.rotary, pairs)));
        }
        return errors;
    };
    const auto layers = for_each_layer(plan, evidence, progress, stop, measure);
    std::vector<std::pair<double, std::size_t>> ranked;
    for (std::size_t i = 0; i < possible.size(); ++i) {
        const int rank = lsq_rank(plan.source, plan.options, static_cast<int>(possible[i].size()));
        double error = 0;
        for (const auto& layer : layers) error += expected_error(layer.choices[i], rank);
        if (std::isfinite(error)) ranked.emplace_back(error, i);
    }
    std::sort(ranked.begin(), ranked.end());
    ranked.resize(std::min(ranked.size(), tried));
    std::vector<Alternative> alternatives;
    for (const auto& [error, i] : ranked) {
        const auto& pairs = possible[i];
        const int apart = pairs.size() > 1 ? pairs[1] : 0;
        alternatives.push_back({fmt::format("{} rotary pairs {} apart", pairs.size(), apart), with_pairs(plan, pairs)});
    }
    for (auto& free : without_restriction(plan, evidence, progress, stop)) alternatives.push_back(std::move(free));
    return alternatives;
}

}  // namespace mha2mla::convert
