#include "finetune/latent_balance.h"

#include "checkpoint/tensors.h"

namespace mha2mla::finetune {

LatentBalance::LatentBalance(model::CausalLm& student, model::CausalLm& teacher,
                             const checkpoint::ModelConfig& config) {
    const torch::NoGradGuard no_gradients;
    const auto of_student = student->named_parameters();
    const auto of_teacher = teacher->named_parameters();
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        const auto name = [&](const char* tensor) { return checkpoint::layer_tensor(layer, tensor); };
        const auto down = of_student[name("self_attn.kv_a_proj_with_mqa.weight")];
        const auto up = of_student[name("self_attn.kv_b_proj.weight")];
        const auto* bias = of_student.find(name("self_attn.kv_a_proj_with_mqa.bias"));
        const auto key_norm = of_teacher[name("self_attn.k_proj.weight")].norm(2, 1).mean();
        const auto rank = config.mla().kv_lora_rank.at(static_cast<std::size_t>(layer));
        const auto norms_R = down.slice(0, 0, rank).norm(2, 1).clamp_min(1e-30);
        layers_.push_back({.down = down,
                           .down_bias = bias == nullptr ? torch::Tensor() : *bias,
                           .up_LKR = up.view({config.mla().latent_groups, -1, up.size(1)}),
                           .exponents_R = (key_norm / norms_R).log2().round().to(torch::kFloat32)});
    }
}

void LatentBalance::scale(double sign) const {
    const torch::NoGradGuard no_gradients;
    for (const auto& layer : layers_) {
        const auto factor_R = torch::exp2(sign * layer.exponents_R);
        const auto rank = factor_R.size(0);
        layer.down.slice(0, 0, rank).mul_(factor_R.unsqueeze(1));
        if (layer.down_bias.defined()) layer.down_bias.slice(0, 0, rank).mul_(factor_R);
        layer.up_LKR.div_(factor_R.view({layer.up_LKR.size(0), 1, -1}));
    }
}

}  // namespace mha2mla::finetune
