#include "convert/lsq_sizes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "convert/deepseek_shape.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

/// The first-order model overrates lost rotation: heads that look at the nearest tokens have logit errors far beyond
/// where it holds. Of 0.03, 0.1 and 0.3 this predicted sizes best (docs/results).
constexpr double rotation_discount = 0.1;
constexpr int step = 4;       // elements
constexpr int lookahead = 8;  // steps: error curves are not quite convex

/// 0, 1, 2, 4, ... components, as far as a layer has them and half of its largest share pays for them.
std::vector<int> component_counts(const Plan& plan, int layer) {
    if (plan.options.lsq.rope_components) return {*plan.options.lsq.rope_components};
    const int elements = plan.target.cached_elements(layer);
    const int most = std::min(plan.source.num_key_value_heads * plan.source.rope_pairs(), elements / 3);
    std::vector<int> counts{0};
    for (int count = 1; count <= most; count *= 2) counts.push_back(count);
    return counts;
}

struct Table {
    std::vector<LayerSize> sizes;  // ascending, `step` apart
    std::size_t at = 0;
};

Table table_of(const LayerErrors& errors, int smallest, int largest) {
    const auto fewest = std::min_element(errors.choices.begin(), errors.choices.end(),
                                         [](const auto& a, const auto& b) { return a.components < b.components; });
    smallest = std::max(smallest, 2 * fewest->components + 1);
    Table table;
    for (int elements = smallest; elements <= largest; elements += step) {
        const LayerSize size = divide(errors, elements);
        if (std::isfinite(size.error)) table.sizes.push_back(size);
    }
    core::invariant(!table.sizes.empty(), "a layer has a size that fits");
    return table;
}

/// Where the next elements gain most.
struct Move {
    std::size_t layer = 0;
    std::size_t steps = 0;
    double gain = 0;  // an element
};

Move best_move(const std::vector<Table>& tables, int budget) {
    Move best;
    for (std::size_t layer = 0; layer < tables.size(); ++layer) {
        const auto& [sizes, at] = tables[layer];
        for (std::size_t steps = 1; steps <= lookahead && at + steps < sizes.size(); ++steps) {
            const int cost = sizes[at + steps].elements - sizes[at].elements;
            const double gain = (sizes[at].error - sizes[at + steps].error) / cost;
            if (cost <= budget && gain > best.gain) best = {layer, steps, gain};
        }
    }
    return best;
}

Plan with_sizes(Plan plan, const std::vector<LayerSize>& sizes) {
    auto& mla = std::get<checkpoint::MlaConfig>(plan.target.attention);
    mla.q_rope_factor = false;
    for (std::size_t layer = 0; layer < sizes.size(); ++layer) {
        const int rope = 2 * sizes[layer].components;
        mla.qk_rope_head_dim[layer] = rope;
        mla.kv_lora_rank[layer] = sizes[layer].elements - rope;
        mla.q_rope_factor = mla.q_rope_factor || rope > 0;
    }
    return plan;
}

}  // namespace

LayerErrors::Choice errors_of_choice(const LsqLayer& layer, const calibrate::AttentionMoments& moments,
                                     const RotaryComponents& rotary) {
    const double price = moments.inverse_power.item<double>();
    auto problem = layer.latent;
    problem.keys = residual_keys(layer, rotary);
    const auto values_seen = layer.latent_is_centred
                                 ? moments.value_covariance
                                 : moments.value_covariance + torch::outer(moments.input_mean, moments.input_mean);
    const auto by_rank = (price * errors_by_rank(problem, moments.key_covariance, values_seen)).contiguous();
    const auto* by_rank_values = by_rank.data_ptr<double>();
    return {.components = static_cast<int>(rotary.pairs.size()),
            .lost_rotation = price * rotary.lost,
            .lost_directions = {by_rank_values, by_rank_values + by_rank.numel()}};
}

double expected_error(const LayerErrors::Choice& choice, int rank) {
    if (rank < 1 || rank >= std::ssize(choice.lost_directions)) return std::numeric_limits<double>::infinity();
    return rotation_discount * choice.lost_rotation + choice.lost_directions[static_cast<std::size_t>(rank)];
}

LayerErrors errors_of(const LayerTask& task) {
    const LsqLayer layer = make_lsq_layer(task);
    LayerErrors errors;
    for (const int count : component_counts(task.plan, task.layer)) {
        errors.choices.push_back(errors_of_choice(layer, *task.moments, choose_components(layer.rotary, count)));
    }
    return errors;
}

LayerSize divide(const LayerErrors& errors, int elements) {
    LayerSize best{.elements = elements, .components = 0, .error = std::numeric_limits<double>::infinity()};
    for (const auto& choice : errors.choices) {
        const double error = expected_error(choice, elements - 2 * choice.components);
        if (error < best.error) best = {.elements = elements, .components = choice.components, .error = error};
    }
    return best;
}

std::vector<LayerErrors> for_each_layer(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                        const std::stop_token& stop,
                                        core::FunctionRef<LayerErrors(const LayerTask&)> measure) {
    std::vector<LayerErrors> errors;
    const int layers = plan.source.num_hidden_layers;
    progress.begin("sizing layers", layers);
    for (int layer = 0; layer < layers; ++layer) {
        core::throw_if_stopped(stop);
        const auto source = load_attention(evidence.source, layer, evidence.device);
        const auto moments = evidence.moments(layer);
        errors.push_back(measure({source, plan, layer, &moments}));
        progress.update(layer + 1, "");
    }
    progress.end();
    return errors;
}

std::vector<LayerSize> allocate(const std::vector<LayerErrors>& layers, int mean) {
    const int smallest = std::max(1, static_cast<int>(0.6 * mean) / step * step);
    std::vector<Table> tables;
    int budget = mean * static_cast<int>(layers.size());
    for (const auto& errors : layers) {
        tables.push_back(table_of(errors, smallest, static_cast<int>(1.67 * mean)));
        budget -= tables.back().sizes.front().elements;
    }
    for (Move move = best_move(tables, budget); move.steps > 0; move = best_move(tables, budget)) {
        auto& [sizes, at] = tables[move.layer];
        budget -= sizes[at + move.steps].elements - sizes[at].elements;
        at += move.steps;
    }
    std::vector<LayerSize> chosen;
    for (const auto& [sizes, at] : tables) chosen.push_back(sizes[at]);
    return chosen;
}

bool lsq_leaves_choices(const Plan& plan) { return *plan.options.lsq.by_layer || plan.options.lsq.deepseek_shape; }

std::vector<Alternative> alternatives_of_lsq(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                             const std::stop_token& stop) {
    if (plan.options.lsq.deepseek_shape) return alternatives_of_deepseek_shape(plan, evidence, progress, stop);
    Plan equal = plan;
    equal.options.lsq.by_layer = false;
    equal.options.lsq.rope_components = plan.target.mla().qk_rope_head_dim.at(0) / 2;
    if (!*plan.options.lsq.by_layer) return {{"equal layers", equal}};
    const auto measure = [](const LayerTask& task) { return errors_of(task); };
    const auto errors = for_each_layer(plan, evidence, progress, stop, measure);
    return {{"equal layers", equal},
            {"sizes by layer", with_sizes(plan, allocate(errors, plan.target.cached_elements(0)))}};
}

}  // namespace mha2mla::convert
