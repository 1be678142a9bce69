#include "runtime/decoder.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "runtime/oracle.h"
#include "runtime/workspace.h"

namespace mha2mla::runtime {
namespace {

using std::string_literals::operator""s;
using checkpoint::NopePairs;
using test::Engine;
using test::f32_options;
using test::Logits;
using test::MlaChoice;
using test::relative_error;

DecoderOptions bf16_options(AttentionForm form = AttentionForm::automatic) { return {.attention = form}; }

class Fixture : public testing::TestWithParam<std::string> {};

TEST_P(Fixture, LogitsEqualTransformers) {
    const auto model = test::open_fixture(GetParam());
    const auto expected = core::parse_json(core::read_text(model.path() / "expected.json"), "expected.json");
    const auto tokens = expected["tokens"].get<std::vector<int>>();
    Logits wanted;
    for (const auto& row : expected["logits"]) wanted.push_back(row.get<std::vector<double>>());
    Engine engine(model, f32_options());
    for (const std::size_t piece : {tokens.size(), std::size_t{1}, std::size_t{5}}) {
        const Logits logits = engine.logits(tokens, piece);
        Logits seen;
        for (const auto& position : expected["positions"]) seen.push_back(logits[position.get<std::size_t>()]);
        EXPECT_LT(relative_error(seen, wanted), 1e-4) << "in pieces of " << piece;
    }
}

INSTANTIATE_TEST_SUITE_P(Tiny, Fixture,
                         testing::Values("tiny-mha"s, "tiny-gqa"s, "tiny-gqa-tied"s, "tiny-llama3"s, "tiny-bias"s),
                         [](const auto& param_info) {
                             auto name = param_info.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

/// All optional parts, with a layer in which nothing rotates.
MlaChoice everything() {
    return {.name = "everything",
            .shared_rope_key = true,
            .nope_pairs = NopePairs::all,
            .pairs = {5, 0},
            .repeats = true,
            .factors = true,
            .own_rope_query = true,
            .positional_part = true,
            .sink_tokens = 4};
}

class Mla : public testing::TestWithParam<MlaChoice> {
protected:
    checkpoint::Checkpoint model_ = test::random_model(test::tiny_mla_config(GetParam()), "mla-" + GetParam().name);
    std::vector<int> tokens_ = test::random_tokens(150, 101);
};

TEST_P(Mla, BothFormsEqualTheOracle) {
    const Logits oracle = test::oracle_logits(model_, tokens_);
    for (const auto form : {AttentionForm::absorbed, AttentionForm::expanded}) {
        Engine engine(model_, f32_options(form));
        for (const std::size_t piece : {150u, 67u, 3u, 1u}) {
            EXPECT_LT(relative_error(engine.logits(tokens_, piece), oracle), 1e-4)
                << "form " << static_cast<int>(form) << ", in pieces of " << piece;
        }
    }
}

TEST_P(Mla, AbsorbedDecodeEqualsExpandedPrefillInBf16) {
    Engine absorbed(model_, bf16_options(AttentionForm::absorbed));
    Engine expanded(model_, bf16_options(AttentionForm::expanded));
    EXPECT_LT(relative_error(absorbed.logits(tokens_, 1), expanded.logits(tokens_, tokens_.size())), 2e-2);
}

TEST_P(Mla, Bf16IsCloseToF32) {
    Engine bf16(model_, bf16_options());
    EXPECT_LT(relative_error(bf16.logits(tokens_, 64), test::oracle_logits(model_, tokens_)), 3e-2);
}

TEST_P(Mla, QuantizedWeightsAreCloseToF32) {
    const auto expected = test::oracle_logits(model_, tokens_);
    for (const auto& [format, bound] :
         {std::pair{kernels::WeightFormat::int8, 5e-2}, std::pair{kernels::WeightFormat::int4, 0.5}}) {
        Engine engine(model_, {.weights = format});
        EXPECT_LT(relative_error(engine.logits(tokens_, 64), expected), bound) << kernels::name_of(format);
        EXPECT_LT(relative_error(engine.logits(tokens_, 1), engine.logits(tokens_, 64)), 5e-2)
            << kernels::name_of(format);
    }
}

TEST_P(Mla, ForksAndTruncationsContinueAsFreshSequences) {
    Engine engine(model_, f32_options());
    const std::span<const int> text(tokens_);
    Sequence trunk = engine.decoder.new_sequence();
    engine.decoder.forward(trunk, text.first(100));
    Sequence branch = engine.decoder.fork(trunk);
    branch.truncate(2);
    std::vector<int> branch_text(tokens_.begin(), tokens_.begin() + 2);
    branch_text.insert(branch_text.end(), tokens_.begin() + 70, tokens_.end());
    const auto of_branch = engine.decoder.forward(branch, text.subspan(70));
    const Logits seen_branch{{of_branch.begin(), of_branch.end()}};
    const auto of_trunk = engine.decoder.forward(trunk, text.subspan(100, 20));
    const Logits seen_trunk{{of_trunk.begin(), of_trunk.end()}};
    EXPECT_LT(relative_error(seen_branch, {engine.logits(branch_text, 150).back()}), 1e-5);
    EXPECT_LT(relative_error(seen_trunk, {engine.logits(text.first(120), 150).back()}), 1e-5);
}

TEST_P(Mla, CacheBytesFollowTheFormula) {
    const auto& mla = model_.config().mla();
    const std::size_t sinks = static_cast<std::size_t>(mla.sink_tokens) * 2 * 2 * 2 * 16 * 2;  // layers, k and v, G, d
    std::size_t elements = 0;
    for (std::size_t layer = 0; layer < 2; ++layer) {
        elements +=
            static_cast<std::size_t>(mla.kv_lora_rank[layer] + mla.num_rope_key_heads * mla.qk_rope_head_dim[layer]);
    }
    Engine engine(model_, bf16_options());
    Sequence sequence = engine.decoder.new_sequence();
    engine.decoder.forward(sequence, std::span(tokens_).first(65));
    EXPECT_EQ(engine.decoder.kv_bytes_per_token(), elements * 2);
    EXPECT_EQ(sequence.kv_bytes().used, elements * 2 * 65 + sinks);
    EXPECT_EQ(sequence.kv_bytes().allocated, elements * 2 * 128 + sinks);
    EXPECT_EQ(engine.decoder.kv_bytes().allocated, elements * 2 * 128 + sinks);
    EXPECT_EQ(engine.decoder.kv_bytes().capacity, elements * 2 * 704);
    const auto latents = static_cast<std::size_t>(100 - mla.sink_tokens) * elements * 2;
    EXPECT_EQ(engine.decoder.step_cache_bytes(100), static_cast<double>(latents + sinks));
}

/// 64 tokens of 4 heads are more rows than positional logits are found for at once over three blocks of positions.
TEST(PositionalPart, KeysThatAreAttendedToInSeveralRunsEqualTheOracle) {
    static_assert(3 * 64 * 4 > max_position_rows);
    const MlaChoice choice{.name = "several_runs", .positional_part = true, .sink_tokens = 4};
    const auto model = test::random_model(test::tiny_mla_config(choice), "several-runs");
    const auto tokens = test::random_tokens(600, 101);
    const Logits oracle = test::oracle_logits(model, tokens);
    Engine engine(model, f32_options(AttentionForm::absorbed), 1);
    EXPECT_LT(relative_error(engine.logits(tokens, 64), oracle), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(
    Tiny, Mla,
    testing::Values(
        MlaChoice{.name = "own_rotary_keys"}, MlaChoice{.name = "shared_rotary_key", .shared_rope_key = true},
        MlaChoice{.name = "all_pairs_unrotated", .shared_rope_key = true, .nope_pairs = NopePairs::all},
        MlaChoice{.name = "own_keys_all_pairs", .nope_pairs = NopePairs::all, .biases = true},
        MlaChoice{.name = "factors", .nope_pairs = NopePairs::all, .factors = true},
        MlaChoice{.name = "factors_of_what_is_unrotated", .pairs = {0, 5}, .factors = true},
        MlaChoice{.name = "own_rotary_query", .shared_rope_key = true, .own_rope_query = true},
        MlaChoice{.name = "own_rotary_query_and_keys", .biases = true, .own_rope_query = true},
        MlaChoice{.name = "positional_part", .positional_part = true},
        MlaChoice{.name = "sinks", .positional_part = true, .sink_tokens = 4},
        MlaChoice{.name = "a_page_of_sinks", .positional_part = true, .sink_tokens = 64}, everything(),
        MlaChoice{.name = "latent_groups", .ranks = {20, 14}, .biases = true, .latent_groups = 2},
        MlaChoice{.name = "groups_of_two_heads", .ranks = {18, 2}, .pairs = {0, 5}, .kv_heads = 4, .latent_groups = 2},
        MlaChoice{.name = "nothing_unrotated", .ranks = {9, 32}, .pairs = {8, 1}},
        MlaChoice{.name = "nothing_rotated", .ranks = {40, 1}, .pairs = {0, 7}, .biases = true}),
    testing::PrintToStringParamName());

class Plain : public testing::Test {
protected:
    checkpoint::Checkpoint model_ = test::random_model(test::tiny_config(), "plain");
    std::vector<int> tokens_ = test::random_tokens(600, 101);
};

TEST_F(Plain, LongTextsInAnyPiecesEqualTheOracle) {
    const Logits oracle = test::oracle_logits(model_, tokens_);
    for (const int threads : {1, 3}) {
        Engine engine(model_, f32_options(), threads);
        for (const std::size_t piece : {600u, 130u}) {
            EXPECT_LT(relative_error(engine.logits(tokens_, piece), oracle), 1e-4)
                << threads << " threads, in pieces of " << piece;
        }
    }
    Engine bf16(model_, bf16_options());
    EXPECT_LT(relative_error(bf16.logits(tokens_, 600), oracle), 3e-2);
}

TEST_F(Plain, CacheBytesFollowTheFormula) {
    Engine engine(model_, {.context_tokens = 100});
    EXPECT_EQ(engine.decoder.kv_bytes_per_token(), 2u * 2 * 2 * 16 * 2);
    EXPECT_EQ(engine.decoder.kv_bytes().capacity, 128u * 2 * 2 * 2 * 16 * 2) << "whole pages";
    EXPECT_EQ(engine.decoder.kv_bytes().allocated, 0u);
}

TEST_F(Plain, LogitsOfTheLastTokenAreThoseOfAll) {
    Engine engine(model_, f32_options());
    const Logits all = engine.logits(tokens_, 600);
    Sequence sequence = engine.decoder.new_sequence();
    const auto last = engine.decoder.forward(sequence, tokens_);
    EXPECT_LT(relative_error({{last.begin(), last.end()}}, {all.back()}), 1e-6);
}

TEST_F(Plain, ForksAndTruncationsContinueAsFreshSequences) {
    Engine engine(model_, f32_options());
    Decoder& decoder = engine.decoder;
    const std::span<const int> text(tokens_);
    Sequence trunk = decoder.new_sequence();
    decoder.forward(trunk, text.first(100));
    Sequence branch = decoder.fork(trunk);
    decoder.forward(branch, text.subspan(300, 40));
    branch.truncate(105);
    const auto of_branch = decoder.forward(branch, text.subspan(200, 1));
    const Logits seen_branch{{of_branch.begin(), of_branch.end()}};
    const auto of_trunk = decoder.forward(trunk, text.subspan(100, 20));
    const Logits seen_trunk{{of_trunk.begin(), of_trunk.end()}};

    std::vector<int> branch_text(tokens_.begin(), tokens_.begin() + 100);
    branch_text.insert(branch_text.end(), tokens_.begin() + 300, tokens_.begin() + 305);
    branch_text.push_back(tokens_[200]);
    EXPECT_LT(relative_error(seen_branch, {engine.logits(branch_text, 600).back()}), 1e-5);
    EXPECT_LT(relative_error(seen_trunk, {engine.logits(text.first(120), 600).back()}), 1e-5);
}

TEST_F(Plain, HoldsNoTokenBeyondTheContextThoughPagesAreWhole) {
    Engine engine(model_, {.context_tokens = 100});
    Sequence sequence = engine.decoder.new_sequence();
    EXPECT_EQ(engine.decoder.room(sequence), 100);
    EXPECT_THROW(engine.decoder.forward(sequence, std::span(tokens_).first(101)), core::Error);
    engine.decoder.forward(sequence, std::span(tokens_).first(100));
    EXPECT_EQ(engine.decoder.room(sequence), 0);
}

TEST_F(Plain, RefusesWhatDoesNotFitAndKeepsTheSequence) {
    Engine engine(model_, {.context_tokens = 128});
    Sequence sequence = engine.decoder.new_sequence();
    engine.decoder.forward(sequence, std::span(tokens_).first(120));
    EXPECT_EQ(engine.decoder.room(sequence), 8);
    try {
        engine.decoder.forward(sequence, std::span(tokens_).first(9));
        FAIL() << "the context took more than it holds";
    } catch (const core::Error& error) {
        EXPECT_NE(std::string(error.what()).find("--context"), std::string::npos) << error.what();
    }
    EXPECT_EQ(sequence.tokens(), 120);
    engine.decoder.forward(sequence, std::span(tokens_).first(8));
    EXPECT_EQ(sequence.tokens(), 128);
}

TEST_F(Plain, ShowsTheResidualStreamOnItsWay) {
    constexpr std::size_t before = 7;
    const auto text = std::span<const int>(tokens_).first(40);
    Engine engine(model_, f32_options());
    Sequence sequence = engine.decoder.new_sequence();
    engine.decoder.forward(sequence, text.first(before));
    const auto width = static_cast<std::ptrdiff_t>(model_.config().hidden_size);
    std::vector<std::pair<int, bool>> places;
    std::vector<test::Rows> seen;
    engine.decoder.forward_states(sequence, text.subspan(before), [&](const LayerStates& states) {
        places.emplace_back(states.layer, states.attended);
        auto& rows = seen.emplace_back();
        for (auto row = states.x_TE.begin(); row != states.x_TE.end(); row += width)
            rows.emplace_back(row, row + width);
    });
    EXPECT_EQ(sequence.tokens(), 40);
    const decltype(places) expected{{0, false}, {0, true}, {1, false}, {1, true}, {2, false}};
    ASSERT_EQ(places, expected);
    auto oracle = test::oracle_states(model_, text);
    for (std::size_t i = 0; i < oracle.size(); ++i) {
        oracle[i].erase(oracle[i].begin(), oracle[i].begin() + before);
        EXPECT_LT(relative_error(seen[i], oracle[i]), 1e-5) << "at place " << i;
    }
    EXPECT_THROW(engine.decoder.forward_states(sequence, std::span<const int>(tokens_).first(513), [](auto&) {}),
                 std::logic_error);
}

TEST_F(Plain, RefusesTokensOutsideTheVocabularyAndUnknownTypes) {
    Engine engine(model_, f32_options());
    Sequence sequence = engine.decoder.new_sequence();
    for (const int token : {-1, 101}) {
        EXPECT_THROW(engine.decoder.forward(sequence, std::span(&token, 1)), core::Error);
    }
    EXPECT_THROW(Engine(model_, {.kv_cache = cache::plain_format(core::DType::f16)}), core::Error);
    EXPECT_THROW(Engine(model_, {.context_tokens = -1}), core::Error);
}

}  // namespace
}  // namespace mha2mla::runtime
