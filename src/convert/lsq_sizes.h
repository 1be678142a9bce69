#pragma once

#include <stop_token>
#include <vector>

#include "convert/lsq_layer.h"
#include "convert/trial.h"
#include "core/function_ref.h"

namespace mha2mla::convert {

/// What the method's first-order model expects of a layer, by its number of rotary components: squared errors relative
/// to the residual stream, which makes layers comparable.
struct LayerErrors {
    struct Choice {
        int components = 0;
        double lost_rotation = 0;             ///< the rotation that is not kept
        std::vector<double> lost_directions;  ///< by rank, from 0: what the latent does not hold
    };
    std::vector<Choice> choices;
};
LayerErrors errors_of(const LayerTask& task);
/// Of one choice of rotary components.
LayerErrors::Choice errors_of_choice(const LsqLayer& layer, const calibrate::AttentionMoments& moments,
                                     const RotaryComponents& rotary);
/// What the model expects of a choice with a latent of that rank: the error that sizes are chosen by. Infinite where
/// the layer has no such rank.
double expected_error(const LayerErrors::Choice& choice, int rank);

/// Errors of every layer, as `measure` finds them. Throws Cancelled.
std::vector<LayerErrors> for_each_layer(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                        const std::stop_token& stop,
                                        core::FunctionRef<LayerErrors(const LayerTask&)> measure);

/// How a layer divides its share of the cache.
struct LayerSize {
    int elements = 0;  ///< of the cache: latent and rotary key
    int components = 0;
    double error = 0;
};
/// The best division of `elements`.
LayerSize divide(const LayerErrors& errors, int elements);

/// Elements of each layer so that the sum of errors is least and that of the elements no more than `mean` a layer: each
/// step goes where it gains most. No layer gets less than 0.6 or more than 1.67 of the mean.
std::vector<LayerSize> allocate(const std::vector<LayerErrors>& layers, int mean);

/// The plan with equal layers and, where its options leave sizes open, one with sizes by layer. Of a plan for stock
/// engines the alternatives that they load (deepseek_shape.h).
bool lsq_leaves_choices(const Plan& plan);
std::vector<Alternative> alternatives_of_lsq(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                             const std::stop_token& stop);

}  // namespace mha2mla::convert
