// Steps of training against a PyTorch loop (tools/make_finetune_fixtures.py).

#include <gtest/gtest.h>

#include "core/file.h"
#include "finetune/test_support.h"
#include "finetune/trainer.h"

namespace mha2mla::finetune {
namespace {

namespace fs = std::filesystem;

/// Trained from its text alone, a model needs no teacher and no latents.
TEST(Training, FollowsAPyTorchLoopStepByStep) {
    const fs::path root(MHA2MLA_FIXTURES);
    const auto file = (root / "finetune/steps.json").string();
    const auto fixture = core::parse_json(core::read_text(file), file);
    const auto windows = fixture["windows"].get<std::vector<std::vector<int>>>();
    const auto losses = fixture["losses"].get<std::vector<double>>();
    const auto norms = fixture["gradient_norms"].get<std::vector<double>>();

    Options options;
    options.stages = {{Objective::cross_entropy, 1}};
    options.trained = Trained::all;
    options.tokens = static_cast<std::int64_t>(windows.size() * windows[0].size());
    options.batch_tokens = static_cast<std::int64_t>(fixture["batch"].get<std::size_t>() * windows[0].size());
    options.micro_batch = 2;
    options.weight_decay = fixture["weight_decay"];
    options.schedule = {.learning_rate = fixture["learning_rate"],
                        .warmup = fixture["warmup"],
                        .cooldown = fixture["cooldown"],
                        .decay = Decay::inverse_sqrt};

    // The trainer shuffles: windows lie where its order looks for those of the fixture.
    const auto plan = plan_batches(windows, options);
    auto placed = windows;
    std::size_t next = 0;
    for (const auto& batch : plan[0]) {
        for (const auto at : batch.windows) placed[at] = windows[next++];
    }
    ASSERT_EQ(next, windows.size());

    Models models{model::CausalLm(checkpoint::Checkpoint::open(root / "models" / fixture["model"].get<std::string>()),
                                  model::ModelOptions{}),
                  nullptr};
    const checkpoint::test::TemporaryDirectory directory;
    TrainerSetup setup;
    setup.directory = directory.path();
    setup.request = "the fixture";
    Trainer trainer(models, placed, options, setup);
    core::Progress silent;
    trainer.run(silent, {});
    ASSERT_EQ(trainer.log().size(), losses.size());
    for (std::size_t step = 0; step < losses.size(); ++step) {
        EXPECT_NEAR(trainer.log()[step].loss, losses[step], 1e-4 * losses[step]) << step;
        EXPECT_NEAR(trainer.log()[step].gradient_norm, norms[step], 1e-3 * norms[step]) << step;
    }
}

}  // namespace
}  // namespace mha2mla::finetune
