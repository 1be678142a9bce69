#include "finetune/losses.h"

#include <array>
#include <numeric>
#include <optional>
#include <vector>

#include "core/error.h"
#include "finetune/vocabulary_loss.h"
#include "model/autocast.h"
#include "model/rounded_factors.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;

/// Hidden states of the chosen positions, one a row, and the output matrix.
Head head_of(model::CausalLm& model, const Tensor& ids_BT, const Tensor& positions) {
    return {model->decoder()(ids_BT).flatten(0, 1).index_select(0, positions), model->output_matrix()};
}

Head head_of(Teacher& teacher, const MicroBatch& batch, const Tensor& positions) {
    return {teacher.hidden(batch).flatten(0, 1).index_select(0, positions), teacher.output_matrix()};
}

/// The token after each scored position.
Tensor targets_of(const Tensor& ids_BT, const Tensor& positions) {
    return ids_BT.flatten().index_select(0, positions + 1);
}

/// distill and cross-entropy: from the student's distribution of the next token.
class NextTokenLoss : public Loss {
public:
    NextTokenLoss(Models& models, const VocabularyLossOptions& loss, bool bf16)
        : models_(models), options_(loss), bf16_(bf16) {}

    std::int64_t count(std::int64_t window_tokens) const override { return window_tokens - 1; }

    double accumulate(const MicroBatch& batch, double weight) override {
        const auto loss = weight * forward(batch);
        loss.backward();
        return loss.item<double>();
    }

private:
    Tensor forward(const MicroBatch& batch) {
        const auto positions = batch.scored_positions();
        const auto teacher = options_.text_share < 1 ? head_of(*models_.teacher, batch, positions) : Head{};
        const model::Autocast autocast(batch.ids_BT.device(), bf16_);
        return vocabulary_loss(head_of(models_.student, batch.ids_BT, positions), teacher,
                               targets_of(batch.ids_BT, positions), options_);
    }

    Models& models_;
    VocabularyLossOptions options_;
    bool bf16_;
};

/// Each converted attention layer on the source's own inputs: |y' - y|² / |h|² of a token, y the output of the source's
/// attention and h the residual stream behind it, mean over the layers. No more than the graphs of the layers that are
/// learned at once are in memory.
class LayerwiseLoss : public Loss {
public:
    LayerwiseLoss(Models& models, bool bf16) : models_(models), bf16_(bf16) {}

    std::int64_t count(std::int64_t window_tokens) const override { return window_tokens; }

    double accumulate(const MicroBatch& batch, double weight) override {
        const auto positions = batch.positions();
        auto& layers = models_.student->decoder()->layers();
        const double of_layer = weight / static_cast<double>(layers.size());
        std::vector<double> losses(layers.size());
        std::optional<model::RoundedFactors> for_all_threads;
        if (bf16_) for_all_threads.emplace();
        models_.teacher->for_each_layer(batch, [&](std::size_t layer, const AttentionLesson& lesson) {
            losses[layer] = learn(layers[layer]->attention(), lesson, positions, of_layer);
        });
        return std::accumulate(losses.begin(), losses.end(), 0.0);
    }

private:
    double learn(model::Attention& attention, const AttentionLesson& lesson, const Tensor& positions,
                 double weight) const {
        const torch::AutoGradMode with_gradients(true);
        const auto output = [&] {
            const model::Autocast autocast(lesson.input_BTE.device(), bf16_);
            return attention.forward(lesson.input_BTE);
        }();
        const auto error = (output.to(lesson.output_BTE.scalar_type()) - lesson.output_BTE).square().sum(-1);
        const auto relative = error / lesson.residual_BTE.square().sum(-1).clamp_min(1e-30);
        const auto loss = weight * relative.flatten().index_select(0, positions).sum();
        loss.backward();
        return loss.item<double>();
    }

    Models& models_;
    bool bf16_;
};

}  // namespace

std::unique_ptr<Loss> make_loss(Objective objective, Models& models, const Options& options) {
    if (objective == Objective::layerwise) return std::make_unique<LayerwiseLoss>(models, options.bf16);
    const bool text_only = objective == Objective::cross_entropy;
    const VocabularyLossOptions loss{.temperature = options.temperature,
                                     .text_share = text_only ? 1 : options.text_share};
    return std::make_unique<NextTokenLoss>(models, loss, options.bf16);
}

double mean_nll(model::CausalLm& model, const std::vector<std::vector<int>>& windows, torch::Device device) {
    const torch::NoGradGuard no_gradients;
    double sum = 0;
    for (std::size_t i = 0; i < windows.size(); ++i) {
        const MicroBatch batch(windows, std::array{i}, device);
        const auto positions = batch.scored_positions();
        const auto nll = vocabulary_loss(head_of(model, batch.ids_BT, positions), {},
                                         targets_of(batch.ids_BT, positions), {.text_share = 1});
        sum += nll.item<double>() / static_cast<double>(positions.numel());
    }
    return sum / static_cast<double>(windows.size());
}

}  // namespace mha2mla::finetune
