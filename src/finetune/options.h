#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cache/cache_format.h"
#include "core/json.h"

namespace mha2mla::finetune {

/// What a step makes smaller.
enum class Objective {
    layerwise,      ///< the error of each converted attention layer's output, on the source layer's own inputs
    distill,        ///< the divergence from the source model's distribution of the next token
    cross_entropy,  ///< -log p of the text's next token
};

/// A part of a run, with an optimizer and a schedule of its own.
struct Stage {
    Objective objective = Objective::distill;
    double share = 1;  ///< of the run's tokens, in units of the sum over stages

    bool operator==(const Stage&) const = default;
};

/// Which parameters learn.
enum class Trained {
    latent,     ///< queries, and what writes and reads the latent (kv_a_proj_with_mqa, kv_b_proj)
    attention,  ///< everything in the attention layers
    all,
};

/// How the learning rate goes on after its linear warm-up.
enum class Decay {
    inverse_sqrt,  ///< constant, then 1 - sqrt(share of the decay that is over) (arXiv 2405.18392)
    cosine,        ///< half a cosine down to zero
    none,
};

struct Schedule {
    double learning_rate = 2e-4;
    double warmup = 0.05;   ///< share of a stage's steps
    double cooldown = 0.7;  ///< share of the steps that an inverse_sqrt decay takes
    Decay decay = Decay::inverse_sqrt;

    bool operator==(const Schedule&) const = default;
};

struct Options {
    std::vector<Stage> stages;
    Trained trained = Trained::attention;
    std::int64_t tokens = 0;           ///< that the run learns from, all stages together
    int window = 512;                  ///< tokens that are attended to together
    std::int64_t batch_tokens = 1024;  ///< of a step of the optimizer, all processes together
    int micro_batch = 1;               ///< windows that pass through the model at once
    Schedule schedule;
    double weight_decay = 0;
    double clip = 1;                              ///< largest norm of a step's gradient
    double temperature = 1;                       ///< of both distributions in distill
    double text_share = 0;                        ///< share of cross_entropy in distill
    std::optional<cache::CacheFormat> kv_format;  ///< the cache that the model learns to run with
    bool balance = true;     ///< give latent channels the scale of the source's keys while training
    bool recompute = false;  ///< keep the inputs of layers alone, and compute the rest again
    bool bf16 = false;       ///< products in bf16, weights that learn in fp32
    int held_out = 8;        ///< windows that perplexities are of
    std::uint64_t seed = 0;
    std::string device = "cpu";
};

/// What the choices are called.
inline const std::map<std::string, Objective> objective_names{
    {"layerwise", Objective::layerwise}, {"distill", Objective::distill}, {"cross-entropy", Objective::cross_entropy}};
inline const std::map<std::string, Trained> trained_names{
    {"latent", Trained::latent}, {"attention", Trained::attention}, {"all", Trained::all}};
inline const std::map<std::string, Decay> decay_names{
    {"1-sqrt", Decay::inverse_sqrt}, {"cosine", Decay::cosine}, {"none", Decay::none}};

/// Reads "layerwise:0.4,distill:0.6" (a share is 1 where none is given). Throws Error naming --objective.
std::vector<Stage> parse_stages(const std::string& text);
/// The same again.
std::string name_of(const std::vector<Stage>& stages);
std::string name_of(Objective objective);

/// Everything that the result depends on: a resumed run must have the same.
core::OrderedJson to_json(const Options& options);

}  // namespace mha2mla::finetune
