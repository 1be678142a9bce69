#include "finetune/parameters.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace mha2mla::finetune {
namespace {

constexpr std::array<std::string_view, 4> latent_modules{".q_proj.", ".q_rope_proj.", ".kv_a_proj_with_mqa.",
                                                         ".kv_b_proj."};

bool learns(const std::string& name, Trained trained) {
    if (trained == Trained::all) return true;
    if (!is_of_attention(name)) return false;
    if (trained == Trained::attention) return true;
    return std::any_of(latent_modules.begin(), latent_modules.end(),
                       [&](std::string_view module) { return name.find(module) != std::string::npos; });
}

}  // namespace

bool is_of_attention(const std::string& name) { return name.find(".self_attn.") != std::string::npos; }

std::vector<NamedParameter> choose_parameters(model::CausalLm& model, Trained trained) {
    std::vector<NamedParameter> chosen;
    for (auto& item : model->named_parameters()) {
        const bool takes_part = learns(item.key(), trained);
        item.value().set_requires_grad(takes_part);
        if (takes_part) chosen.push_back({item.key(), item.value()});
    }
    return chosen;
}

std::vector<torch::Tensor> values_of(const std::vector<NamedParameter>& parameters) {
    std::vector<torch::Tensor> values;
    for (const auto& parameter : parameters) values.push_back(parameter.value);
    return values;
}

}  // namespace mha2mla::finetune
