#include "finetune/teacher.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "core/error.h"
#include "model/autocast.h"
#include "model/one_thread_each.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;
using Learn = core::FunctionRef<void(std::size_t, const AttentionLesson&)>;

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
    AttentionLesson attend(model::DecoderLayer& source, const Tensor& x_BTE) const {
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
    StatesTeacher(SourceNorms norms, std::unique_ptr<SourceStates> states)
        : norms_(std::move(norms)), states_(std::move(states)) {}

    // All layers are run before the first one is learned from: two pools of threads that take turns at every layer
    // would wait for each other, and so would threads that share a layer's small products.
    void for_each_layer(const MicroBatch& batch, Learn learn) override {
        const torch::NoGradGuard no_gradients;
        const auto stream_LBTE = empty_states(batch, layers());
        const auto attended_LBTE = empty_states(batch, layers());
        run(batch, [&](const SourceState& state) {
            return state.layer == layers() ? Tensor() : (state.attended ? attended_LBTE : stream_LBTE)[state.layer];
        });
        model::one_thread_each(layers(), [&](std::int64_t layer) {
            const torch::NoGradGuard no_gradients_here;
            const auto before = stream_LBTE[layer];
            const auto after = attended_LBTE[layer];
            learn(static_cast<std::size_t>(layer),
                  {normed(norms_.of_inputs[static_cast<std::size_t>(layer)], before), after - before, after});
        });
    }

    Tensor hidden(const MicroBatch& batch) override {
        const torch::NoGradGuard no_gradients;
        const auto last_BTE = empty_states(batch, 1)[0];
        run(batch, [&](const SourceState& state) { return state.layer == layers() ? last_BTE : Tensor(); });
        return normed(norms_.final_norm, last_BTE);
    }

    const Tensor& output_matrix() const override { return norms_.output_matrix; }

private:
    std::int64_t layers() const { return std::ssize(norms_.of_inputs); }
    std::int64_t width() const { return norms_.output_matrix.size(1); }

    /// [layers, batch, tokens, hidden]; zero behind the end of a window.
    Tensor empty_states(const MicroBatch& batch, std::int64_t layers) const {
        const auto states_LBTE = torch::empty({layers, batch.ids_BT.size(0), batch.ids_BT.size(1), width()});
        for (std::int64_t row = 0; row < batch.ids_BT.size(0); ++row) {
            states_LBTE.select(1, row).slice(1, batch.lengths[static_cast<std::size_t>(row)]).zero_();
        }
        return states_LBTE;
    }

    /// `place`: where the states of a layer belong, [batch, tokens, hidden], or undefined where none asks for them.
    void run(const MicroBatch& batch, core::FunctionRef<Tensor(const SourceState& state)> place) {
        for (std::int64_t row = 0; row < batch.ids_BT.size(0); ++row) {
            const auto length = batch.lengths[static_cast<std::size_t>(row)];
            const auto* ids = batch.ids_BT[row].data_ptr<std::int64_t>();
            const std::vector<int> window(ids, ids + length);
            std::int64_t shown = 0;
            states_->run(window, [&](const SourceState& state) {
                const auto place_BTE = place(state);
                if (place_BTE.defined()) put(state, place_BTE[row].slice(0, 0, length));
                shown += std::ssize(state.x_TE);
            });
            core::invariant(shown == (2 * layers() + 1) * length * width(), "every state of a window was shown");
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

    SourceNorms norms_;
    std::unique_ptr<SourceStates> states_;
};

}  // namespace

std::unique_ptr<Teacher> make_teacher(model::CausalLm source, bool bf16) {
    return std::make_unique<ModelTeacher>(std::move(source), bf16);
}

SourceNorms::SourceNorms(model::CausalLm& source)
    : final_norm(source->decoder()->norm()), output_matrix(source->output_matrix().detach().to(torch::kBFloat16)) {
    for (auto& layer : source->decoder()->layers()) of_inputs.push_back(layer->input_norm());
}

std::unique_ptr<Teacher> make_teacher(SourceNorms norms, std::unique_ptr<SourceStates> states) {
    return std::make_unique<StatesTeacher>(std::move(norms), std::move(states));
}

}  // namespace mha2mla::finetune
