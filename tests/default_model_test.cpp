// The native runtime on the default model (MHA2MLA_MODEL: SmolLM2-135M-Instruct) and WikiText-2.
// Expected perplexities: tools/make_perplexity_fixtures.py (transformers).

#include <gtest/gtest.h>

#include "run_program.h"

namespace mha2mla::tests {
namespace {

constexpr double tolerance = 0.003;

struct Windows {
    std::string name;
    int first;
    int count;
    double perplexity;
};

void PrintTo(const Windows& windows, std::ostream* out) { *out << windows.name; }

class WikiTextTest : public testing::TestWithParam<Windows> {};

TEST_P(WikiTextTest, PerplexityIsThatOfTransformers) {
    const auto model = default_model();
    if (!model) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const auto text = shared_file("text/wikitext2-raw-test.txt");
    if (!text) GTEST_SKIP() << "text/wikitext2-raw-test.txt is not in MHA2MLA_DATA";
    const auto [name, first, count, expected] = GetParam();
    const auto result = run({"eval", *model, "--task", "perplexity", "--text", *text, "--window", "1024", "--first",
                             std::to_string(first), "--windows", std::to_string(count), "--json"})
                            .json();
    EXPECT_NEAR(result["perplexity"].get<double>(), expected, tolerance * expected);
    EXPECT_EQ(result["tokens"], count * 1023);
}

INSTANTIATE_TEST_SUITE_P(DefaultModel, WikiTextTest,
                         testing::Values(Windows{"Windows0To3", 0, 4, 23.10}, Windows{"Windows8To15", 8, 8, 17.43},
                                         Windows{"Windows0To31", 0, 32, 24.02}),
                         [](const auto& instance) { return instance.param.name; });

TEST(DefaultModel, AllocatedCacheIsTheFormulaInWholePages) {
    const auto model = default_model();
    if (!model) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const auto stats = run({"generate", *model, "-p", "Once upon a time", "-n", "8", "--ignore-eos", "--json"}).json();
    constexpr int bytes_per_token = 2 * 3 * 64 * 2 * 30;  // keys and values, KV heads, head width, bf16, layers
    EXPECT_EQ(stats["kv_bytes_allocated"], 64 * bytes_per_token);
}

}  // namespace
}  // namespace mha2mla::tests
