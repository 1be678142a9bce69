#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/test_support.h"
#include "finetune/losses.h"

namespace mha2mla::finetune::test {

/// Source and converted model of two layers with random weights, in a directory.
class TinyPair {
public:
    explicit TinyPair(const std::filesystem::path& root)
        : source_((write(root, "source", checkpoint::test::tiny_config()), open(root, "source"))),
          converted_((write(root, "converted", checkpoint::test::exact_mla_config()), open(root, "converted"))) {}

    const checkpoint::Checkpoint& source() const { return source_; }
    const checkpoint::Checkpoint& converted() const { return converted_; }
    /// Loaded anew, to be run by one thread: tests run side by side, and threads of tiny products wait for each other.
    Models load(const model::ModelOptions& options = {}) const {
        torch::set_num_threads(1);
        return {model::CausalLm(converted_, options), make_teacher(load_source(options), false)};
    }
    model::CausalLm load_source(const model::ModelOptions& options = {}) const {
        return model::CausalLm(source_, options);
    }

private:
    static void write(const std::filesystem::path& root, const char* name, const checkpoint::ModelConfig& config) {
        checkpoint::test::write_random_model(config, root / name);
    }
    static checkpoint::Checkpoint open(const std::filesystem::path& root, const char* name) {
        return checkpoint::Checkpoint::open(root / name);
    }

    checkpoint::Checkpoint source_;
    checkpoint::Checkpoint converted_;
};

/// LibTorch in the place of something faster, in pieces of five tokens.
class TorchStates : public SourceStates {
public:
    explicit TorchStates(model::CausalLm source) : source_(std::move(source)) {}

    void run(std::span<const int> window, core::FunctionRef<void(const SourceState&)> visit) override {
        const torch::NoGradGuard no_gradients;
        const std::vector<std::int64_t> ids(window.begin(), window.end());
        auto& decoder = source_->decoder();
        auto x_BTE = decoder->embed_tokens(torch::tensor(ids, torch::kInt64).unsqueeze(0));
        int layer = 0;
        for (auto& source : decoder->layers()) {
            show(layer, false, x_BTE[0], visit);
            x_BTE = source->attend(x_BTE);
            show(layer++, true, x_BTE[0], visit);
            x_BTE = source->feed_forward(x_BTE);
        }
        show(layer, false, x_BTE[0], visit);
    }

private:
    static void show(int layer, bool attended, const torch::Tensor& x_TE,
                     core::FunctionRef<void(const SourceState&)> visit) {
        for (int first = 0; first < x_TE.size(0); first += 5) {
            const auto piece = x_TE.slice(0, first, first + 5).contiguous();
            visit({.layer = layer,
                   .attended = attended,
                   .first_token = first,
                   .x_TE = {piece.data_ptr<float>(), static_cast<std::size_t>(piece.numel())}});
        }
    }

    model::CausalLm source_;
};

/// Windows of several lengths.
inline std::vector<std::vector<int>> tiny_windows() {
    std::vector<std::vector<int>> windows;
    for (int w = 0; w < 12; ++w) {
        auto& window = windows.emplace_back();
        for (int t = 0; t < 8 + w % 3; ++t) window.push_back((w * 5 + t * t) % 15);
    }
    return windows;
}

inline Options tiny_options() {
    Options options;
    options.stages = {{Objective::layerwise, 1}, {Objective::distill, 1}, {Objective::cross_entropy, 0.5}};
    options.tokens = 500;
    options.batch_tokens = 30;
    options.schedule.learning_rate = 0.01;
    options.held_out = 2;
    return options;
}

}  // namespace mha2mla::finetune::test
