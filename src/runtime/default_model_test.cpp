#include <cstdlib>
#include <gtest/gtest.h>

#include "core/file.h"
#include "core/json.h"
#include "runtime/generate.h"
#include "runtime/oracle.h"

namespace mha2mla::runtime {
namespace {

/// Fixture: tools/make_generate_fixtures.py (transformers, bf16 weights, f32 arithmetic).
TEST(DefaultModel, GreedyTextEqualsTransformers) {
    const char* const path = std::getenv("MHA2MLA_MODEL");
    if (path == nullptr) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const auto fixture = core::parse_json(
        core::read_text(std::filesystem::path(MHA2MLA_FIXTURES) / "generate" / "smollm2_greedy.json"), "fixture");
    test::Engine engine(checkpoint::Checkpoint::open(path), {.context_tokens = 512});
    ASSERT_EQ(fixture["cases"].size(), 5u);
    for (const auto& text : fixture["cases"]) {
        const auto prompt = text["prompt_ids"].get<std::vector<int>>();
        const auto expected = text["output_ids"].get<std::vector<int>>();
        std::vector<int> output;
        Sequence sequence = engine.decoder.new_sequence();
        generate(engine.decoder, sequence, prompt, {.max_tokens = static_cast<int>(expected.size())},
                 [&](int token) { output.push_back(token); }, {});
        EXPECT_EQ(output, expected) << text["name"];
    }
}

}  // namespace
}  // namespace mha2mla::runtime
