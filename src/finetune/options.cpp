#include "finetune/options.h"

#include <charconv>
#include <fmt/format.h>
#include <sstream>

#include "core/error.h"

namespace mha2mla::finetune {
namespace {

[[noreturn]] void refuse(const std::string& stage) {
    throw core::Error({.what = "not a sequence of objectives",
                       .expected = "layerwise, distill or cross-entropy, each with a share: layerwise:0.4,distill:0.6",
                       .got = fmt::format("'{}'", stage),
                       .where = "--objective"});
}

Stage parse_stage(const std::string& text) {
    const auto colon = text.find(':');
    const auto objective = objective_names.find(text.substr(0, colon));
    if (objective == objective_names.end()) refuse(text);
    Stage stage{.objective = objective->second};
    if (colon == std::string::npos) return stage;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, stage.share);
    if (error != std::errc() || stop != end || !(stage.share > 0 && stage.share < 1e6)) refuse(text);
    return stage;
}

template <typename Names, typename Value>
std::string find_name(const Names& names, Value value) {
    for (const auto& [name, named] : names) {
        if (named == value) return name;
    }
    core::invariant(false, "every value has a name");
    return {};
}

}  // namespace

std::vector<Stage> parse_stages(const std::string& text) {
    std::vector<Stage> stages;
    std::istringstream words(text);
    for (std::string word; std::getline(words, word, ',');) stages.push_back(parse_stage(word));
    if (stages.empty()) refuse(text);
    return stages;
}

std::string name_of(Objective objective) { return find_name(objective_names, objective); }

std::string name_of(const std::vector<Stage>& stages) {
    std::string text;
    for (const auto& stage : stages) {
        if (!text.empty()) text += ",";
        text += name_of(stage.objective);
        if (stage.share != 1) text += fmt::format(":{:g}", stage.share);
    }
    return text;
}

core::OrderedJson to_json(const Options& options) {
    const auto& schedule = options.schedule;
    return {{"objective", name_of(options.stages)},
            {"train", find_name(trained_names, options.trained)},
            {"tokens", options.tokens},
            {"window", options.window},
            {"batch_tokens", options.batch_tokens},
            {"micro_batch", options.micro_batch},
            {"learning_rate", schedule.learning_rate},
            {"warmup", schedule.warmup},
            {"cooldown", schedule.cooldown},
            {"decay", find_name(decay_names, schedule.decay)},
            {"weight_decay", options.weight_decay},
            {"clip", options.clip},
            {"temperature", options.temperature},
            {"text_share", options.text_share},
            {"kv_format", options.kv_format ? cache::name_of(*options.kv_format) : "none"},
            {"balance", options.balance},
            {"recompute", options.recompute},
            {"bf16", options.bf16},
            {"held_out", options.held_out},
            {"seed", options.seed},
            {"device", options.device}};
}

}  // namespace mha2mla::finetune
