#include <memory>

#include "cli/workshop.h"
#include "core/error.h"
#include "model/causal_lm.h"

namespace mha2mla::cli {
namespace {

torch::Dtype torch_dtype(core::DType dtype) { return dtype == core::DType::f32 ? torch::kFloat32 : torch::kBFloat16; }

/// -log p of the tokens from `first` on. The vocabulary is walked in chunks of positions: whole windows of float logits
/// are large.
std::vector<double> negative_log_likelihoods(const torch::Tensor& logits_TV, const torch::Tensor& tokens_T,
                                             std::int64_t first) {
    constexpr std::int64_t chunk = 128;
    const std::int64_t last = tokens_T.size(0) - 1;
    std::vector<double> result;
    result.reserve(static_cast<std::size_t>(last - first + 1));
    for (std::int64_t begin = first - 1; begin < last; begin += chunk) {
        const std::int64_t end = std::min(begin + chunk, last);
        const auto targets = tokens_T.slice(0, begin + 1, end + 1);
        const auto nll = torch::nn::functional::cross_entropy(
                             logits_TV.slice(0, begin, end).to(torch::kFloat32), targets,
                             torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone))
                             .to(torch::kCPU, torch::kFloat64)
                             .contiguous();
        result.insert(result.end(), nll.data_ptr<double>(), nll.data_ptr<double>() + nll.numel());
    }
    return result;
}

}  // namespace

bool has_workshop() { return true; }

void hand_over_to_workshop(char** /*arguments*/) {}

eval::WindowScorer module_scorer(const checkpoint::Checkpoint& model, const ModuleOptions& module_options) {
    model::use_threads(module_options.threads);
    model::ModelOptions options;
    options.dtype = torch_dtype(module_options.dtype);
    options.device = model::parse_device(module_options.device);
    options.emulated_cache = module_options.cache;
    auto module = std::make_shared<model::CausalLm>(model, options);
    return [module, options](std::span<const int> tokens, std::size_t first) {
        const torch::NoGradGuard no_grad;
        const std::vector<std::int64_t> ids(tokens.begin(), tokens.end());
        const auto tokens_T = torch::tensor(ids, torch::kInt64).to(options.device);
        const auto logits_BTV = (*module)->forward(tokens_T.unsqueeze(0));
        return negative_log_likelihoods(logits_BTV[0], tokens_T, static_cast<std::int64_t>(first));
    };
}

}  // namespace mha2mla::cli
