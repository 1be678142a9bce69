#include "finetune/teacher.h"

#include <utility>
#include <vector>

#include "core/error.h"
#include "model/autocast.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;
using Learn = core::FunctionRef<void(std::size_t, const Lesson&)>;

class ModelTeacher : public Teacher {
public:
    ModelTeacher(model::CausalLm source, bool bf16) : source_(std::move(source)), bf16_(bf16) {}

    void for_each_layer(const MicroBatch& batch, Learn learn) override {
        const torch::NoGradGuard no_gradients;
        auto x_BTE = source_->decoder()->embed_tokens(batch.ids_BT);
        std::size_t layer = 0;
        for (auto& source : source_->decoder()->layers()) {
            const auto lesson = attend(source, x_BTE);
            learn(layer++, lesson);
            const model::Autocast autocast(x_BTE.device(), bf16_);
            x_BTE = source->feed_forward(lesson.residual_BTE);
        }
    }

    Tensor hidden(const MicroBatch& batch) override {
        const torch::NoGradGuard no_gradients;
        const model::Autocast autocast(batch.ids_BT.device(), bf16_);
        return source_->decoder()(batch.ids_BT);
    }

    const Tensor& output_matrix() const override { return source_->output_matrix(); }

private:
    Lesson attend(model::DecoderLayer& source, const Tensor& x_BTE) const {
        const model::Autocast autocast(x_BTE.device(), bf16_);
        const auto input = source->attention_input(x_BTE);
        const auto output = source->attention().forward(input).to(x_BTE.scalar_type());
        return {input, output, x_BTE + output};
    }

    model::CausalLm source_;
    bool bf16_;
};

class StatesTeacher : public Teacher {
public:
    StatesTeacher(model::CausalLm& source, std::unique_ptr<SourceStates> states)
        : states_(std::move(states)), final_norm_(source->decoder()->norm()), output_matrix_(source->output_matrix()) {
        for (auto& layer : source->decoder()->layers()) input_norms_.push_back(layer->input_norm());
    }

    // All layers are run before the first one is learned from: two pools of threads that take turns at every layer
    // would wait for each other.
    void for_each_layer(const MicroBatch& batch, Learn learn) override {
        const torch::NoGradGuard no_gradients;
        const auto layers = std::ssize(input_norms_);
        const auto stream_LBTE = empty_states(batch, layers);
        const auto attended_LBTE = empty_states(batch, layers);
        run(batch, [&](std::int64_t row, const SourceState& state) {
            if (state.layer < layers) put(state, (state.attended ? attended_LBTE : stream_LBTE)[state.layer][row]);
        });
        for (std::int64_t layer = 0; layer < layers; ++layer) {
            const auto before = stream_LBTE[layer];
            const auto after = attended_LBTE[layer];
            learn(static_cast<std::size_t>(layer),
                  {normed(input_norms_[static_cast<std::size_t>(layer)], before), after - before, after});
        }
    }

    Tensor hidden(const MicroBatch& batch) override {
        const torch::NoGradGuard no_gradients;
        const auto last_LBTE = empty_states(batch, 1);
        run(batch, [&](std::int64_t row, const SourceState& state) {
            if (state.layer == std::ssize(input_norms_)) put(state, last_LBTE[0][row]);
        });
        return normed(final_norm_, last_LBTE[0]);
    }

    const Tensor& output_matrix() const override { return output_matrix_; }

private:
    /// [layers, batch, tokens, hidden]; zero behind the end of a window.
    Tensor empty_states(const MicroBatch& batch, std::int64_t layers) const {
        const auto states_LBTE =
            torch::empty({layers, batch.ids_BT.size(0), batch.ids_BT.size(1), output_matrix_.size(1)});
        for (std::int64_t row = 0; row < batch.ids_BT.size(0); ++row) {
            states_LBTE.select(1, row).slice(1, batch.lengths[static_cast<std::size_t>(row)]).zero_();
        }
        return states_LBTE;
    }

    void run(const MicroBatch& batch, core::FunctionRef<void(std::int64_t row, const SourceState& state)> visit) {
        for (std::int64_t row = 0; row < batch.ids_BT.size(0); ++row) {
            const auto* ids = batch.ids_BT[row].data_ptr<std::int64_t>();
            const std::vector<int> window(ids, ids + batch.lengths[static_cast<std::size_t>(row)]);
            states_->run(window, [&](const SourceState& state) { visit(row, state); });
        }
    }

    static void put(const SourceState& state, const Tensor& x_TE) {
        const auto first = state.first_token * x_TE.size(1);
        core::invariant(first + std::ssize(state.x_TE) <= x_TE.numel(), "a state is of tokens of its window");
        std::copy(state.x_TE.begin(), state.x_TE.end(), x_TE.data_ptr<float>() + first);
    }

    static Tensor normed(model::RmsNorm& norm, const Tensor& x_BTE) {
        const model::Autocast autocast(x_BTE.device(), true);
        return norm(x_BTE);
    }

    std::unique_ptr<SourceStates> states_;
    std::vector<model::RmsNorm> input_norms_;
    model::RmsNorm final_norm_;
    Tensor output_matrix_;
};

}  // namespace

std::unique_ptr<Teacher> make_teacher(model::CausalLm source, bool bf16) {
    return std::make_unique<ModelTeacher>(std::move(source), bf16);
}

std::unique_ptr<Teacher> make_teacher(model::CausalLm& source, std::unique_ptr<SourceStates> states) {
    return std::make_unique<StatesTeacher>(source, std::move(states));
}

}  // namespace mha2mla::finetune
