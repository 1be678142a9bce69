// Conversion of a small trained model with grouped-query attention (stories260K: 8 heads, 4 KV heads of 8), untrained
// after it, by every method, and of full size, which loses nothing.

#include <gtest/gtest.h>

#include "run_program.h"

namespace mha2mla::tests {
namespace {

/// A test that needs stories260K and text of its kind.
class TrainedModelConversion : public testing::Test {
protected:
    void SetUp() override {
        const auto model = shared_file("models/stories260K/stories260K.gguf");
        const auto stories = shared_file("text/tinystories-248k.txt");
        if (!model || !stories) GTEST_SKIP() << "stories260K and its text are not in MHA2MLA_DATA";
        source = *model;
        text = *stories;
    }

    double perplexity(const std::string& model) const {
        return run({"eval", model, "--text", text, "--window", "256", "--windows", "8", "--weights", "f32",
                    "--kv-cache", "f32", "--json"})
            .json()["perplexity"]
            .get<double>();
    }

    /// All conversions share one calibration.
    double converted(const std::vector<std::string>& options) const {
        const std::string target = directory / "mla";
        std::vector<std::string> arguments{"convert",
                                           source,
                                           target,
                                           "--dtype",
                                           "f32",
                                           "--force",
                                           "--calibration-windows",
                                           "8",
                                           "--calibration-window",
                                           "256"};
        arguments.insert(arguments.end(), options.begin(), options.end());
        const auto outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
        return perplexity(target);
    }

    TemporaryDirectory directory;
    std::string source;
    std::string text;
};

TEST_F(TrainedModelConversion, FullSizeIsTheSource) {
    const double expected = perplexity(source);
    // 4 KV heads of 4 pairs: all 16 components, and a latent of full rank.
    EXPECT_NEAR(converted({"--cache-ratio", "2", "--rope-components", "16", "--no-by-layer"}), expected,
                1e-3 * expected);
}

TEST_F(TrainedModelConversion, LsqLosesLeast) {
    const std::string statistics = directory / "statistics";
    const double expected = perplexity(source);
    const double lsq = converted({"--cache-ratio", "0.5", "--statistics", statistics});
    const double transmla = converted({"--cache-ratio", "0.5", "--statistics", statistics, "--method", "transmla"});
    const double mha2mla = converted({"--cache-ratio", "0.5", "--method", "mha2mla", "--rope-pairs", "1"});
    EXPECT_LT(lsq, 1.1 * expected);
    EXPECT_LT(lsq, transmla);
    EXPECT_LT(lsq, mha2mla);
}

}  // namespace
}  // namespace mha2mla::tests
