#include "finetune/losses.h"

#include <array>

#include "core/error.h"
#include "finetune/vocabulary_loss.h"
#include "model/autocast.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;

/// Hidden states of the chosen positions, one a row, and the output matrix.
Head head_of(model::CausalLm& model, const Tensor& ids_BT, const Tensor& positions) {
    return {model->decoder()(ids_BT).flatten(0, 1).index_select(0, positions), model->output_matrix()};
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
        const auto positions = batch.scored_positions();
        const auto loss = weight * forward(batch.ids_BT, positions);
        loss.backward();
        return loss.item<double>();
    }

private:
    Tensor forward(const Tensor& ids_BT, const Tensor& positions) {
        const model::Autocast autocast(ids_BT.device(), bf16_);
        Head teacher;
        if (options_.text_share < 1) {
            const torch::NoGradGuard no_gradients;
            teacher = head_of(models_.teacher, ids_BT, positions);
        }
        return vocabulary_loss(head_of(models_.student, ids_BT, positions), teacher, targets_of(ids_BT, positions),
                               options_);
    }

    Models& models_;
    VocabularyLossOptions options_;
    bool bf16_;
};

/// Each converted attention layer on the source's own inputs: |y' - y|² / |h|² of a token, y the output of the source's
/// attention and h the residual stream behind it, mean over the layers. The source walks ahead layer by layer, so the
/// graph of one attention is in memory at a time.
class LayerwiseLoss : public Loss {
public:
    LayerwiseLoss(Models& models, bool bf16) : models_(models), bf16_(bf16) {}

    std::int64_t count(std::int64_t window_tokens) const override { return window_tokens; }

    double accumulate(const MicroBatch& batch, double weight) override {
        const auto positions = batch.positions();
        auto& teacher = models_.teacher->decoder();
        auto& student = models_.student->decoder();
        const double of_layer = weight / static_cast<double>(teacher->layers().size());
        torch::NoGradGuard no_gradients;
        double sum = 0;
        auto x_BTE = teacher->embed_tokens(batch.ids_BT);
        for (std::size_t layer = 0; layer < teacher->layers().size(); ++layer) {
            auto& source = teacher->layers()[layer];
            const auto lesson = teach(source, x_BTE);
            sum += learn(student->layers()[layer]->attention(), lesson, positions, of_layer);
            const model::Autocast autocast(x_BTE.device(), bf16_);
            x_BTE = source->feed_forward(lesson.residual_BTE);
        }
        return sum;
    }

private:
    struct Lesson {
        Tensor input_BTE;
        Tensor output_BTE;
        Tensor residual_BTE;
    };

    Lesson teach(model::DecoderLayer& source, const Tensor& x_BTE) const {
        const model::Autocast autocast(x_BTE.device(), bf16_);
        const auto input = source->attention_input(x_BTE);
        const auto output = source->attention().forward(input).to(x_BTE.scalar_type());
        return {input, output, x_BTE + output};
    }

    double learn(model::Attention& attention, const Lesson& lesson, const Tensor& positions, double weight) const {
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
