#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>

#include "core/error.h"
#include "runtime/oracle.h"
#include "runtime/transformer.h"

// Several sequences in one forward pass against each of them alone.

namespace mha2mla::runtime {
namespace {

using checkpoint::NopePairs;
using test::f32_options;
using test::Logits;
using test::MlaChoice;
using test::relative_error;

/// Of a sequence: how many tokens it takes in, step by step. 0: none in that step.
using Steps = std::vector<int>;

struct BatchCase {
    std::string name;
    checkpoint::ModelConfig config;
    AttentionForm form = AttentionForm::automatic;
    int threads = 2;

    friend std::ostream& operator<<(std::ostream& stream, const BatchCase& c) { return stream << c.name; }
};

BatchCase of_mla(const MlaChoice& choice, AttentionForm form, int threads) {
    return {choice.name + "_" + std::to_string(static_cast<int>(form)), test::tiny_mla_config(choice), form, threads};
}

MlaChoice with_sinks() {
    return {.name = "sinks",
            .nope_pairs = NopePairs::all,
            .factors = true,
            .own_rope_query = true,
            .positional_part = true,
            .sink_tokens = 4};
}

const WeightOptions f32_weights{
    .formats = {.layers = kernels::WeightFormat::f32, .output = kernels::WeightFormat::f32}};

/// A transformer over pages that were filled with NaN: a row that no query may see poisons the result when it is read.
class PoisonedEngine {
public:
    PoisonedEngine(const checkpoint::Checkpoint& model, const BatchCase& of, int sequences)
        : pool_(of.threads),
          pages_(page_formats(model.config(), cache::plain_format(core::DType::f32)), context * sequences,
                 sink_format(model.config(), core::DType::f32)),
          transformer_(model.config(), load_weights(model, f32_weights, pool_, progress_), f32_options(of.form),
                       context, pool_) {
        for (int layer = 0; layer < pages_.layers(); ++layer) {
            for (cache::PageId page = 0; page < pages_.pages(); ++page) poison(layer, page);
        }
        for (int i = 0; i < sequences; ++i) sequences_.emplace_back(pages_);
    }

    std::int64_t tokens(std::size_t sequence) const { return sequences_[sequence].tokens(); }
    void add(std::size_t sequence, std::span<const int> tokens) { transformer_.add(sequences_[sequence], tokens); }
    /// Runs the batch; the logits of some of its rows.
    Logits forward(std::span<const std::int64_t> rows) {
        transformer_.forward();
        const float* const logits = transformer_.logits(rows);
        Logits seen;
        for (std::size_t i = 0; i < rows.size(); ++i) seen.emplace_back(logits + i * 101, logits + (i + 1) * 101);
        return seen;
    }

private:
    static constexpr std::int64_t context = 320;

    void poison(int layer, cache::PageId page) {
        const auto& planes = pages_.format(layer).planes;
        for (int plane = 0; plane < static_cast<int>(planes.size()); ++plane) {
            std::memset(pages_.row(layer, plane, page, 0), 0xff,
                        planes[static_cast<std::size_t>(plane)].row_bytes * cache::page_tokens);
        }
    }

    core::Progress progress_;
    core::ThreadPool pool_;
    cache::PagePool pages_;
    Transformer transformer_;
    std::vector<cache::SequenceCache> sequences_;
};

class Batch : public testing::TestWithParam<BatchCase> {
protected:
    /// The logits of each sequence after each of its steps.
    std::vector<Logits> run_together(const std::vector<Steps>& steps) const {
        PoisonedEngine engine(model_, GetParam(), static_cast<int>(steps.size()));
        std::vector<Logits> seen(steps.size());
        for (std::size_t step = 0; step < steps.front().size(); ++step) {
            std::vector<std::size_t> order;
            std::vector<std::int64_t> last_rows;
            std::int64_t rows = 0;
            for (std::size_t i = 0; i < steps.size(); ++i) {
                if (steps[i][step] == 0) continue;
                engine.add(i, text_of(i, engine.tokens(i), steps[i][step]));
                order.push_back(i);
                last_rows.push_back((rows += steps[i][step]) - 1);
            }
            const Logits logits = engine.forward(last_rows);
            for (std::size_t i = 0; i < order.size(); ++i) seen[order[i]].push_back(logits[i]);
        }
        return seen;
    }

    Logits run_alone(std::size_t sequence, const Steps& steps) const {
        PoisonedEngine engine(model_, GetParam(), 1);
        Logits seen;
        for (const int count : steps) {
            if (count == 0) continue;
            engine.add(0, text_of(sequence, engine.tokens(0), count));
            seen.push_back(engine.forward(std::vector<std::int64_t>{count - 1}).front());
        }
        return seen;
    }

    std::span<const int> text_of(std::size_t sequence, std::int64_t begin, int count) const {
        return std::span(text_).subspan(static_cast<std::size_t>(begin) + 17 * sequence,
                                        static_cast<std::size_t>(count));
    }

    checkpoint::Checkpoint model_ = test::random_model(GetParam().config, "batch-" + GetParam().name);
    std::vector<int> text_ = test::random_tokens(500, 101);
};

TEST_P(Batch, EachSequenceGetsWhatItGetsAlone) {
    // Prompts of one token to beyond the bounds of a page, a late comer, an early leaver.
    const std::vector<Steps> steps{{1, 1, 1, 1},    {150, 1, 1, 30}, {63, 1, 1, 1}, {0, 70, 1, 1},
                                   {100, 1, 40, 1}, {7, 1, 0, 0},    {64, 1, 1, 1}};
    const auto seen = run_together(steps);
    for (std::size_t i = 0; i < steps.size(); ++i) {
        EXPECT_LT(relative_error(seen[i], run_alone(i, steps[i])), 1e-5) << "sequence " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(
    Models, Batch,
    testing::Values(
        BatchCase{"source", test::tiny_config(), AttentionForm::automatic, 2},
        BatchCase{"source_1_thread", test::tiny_config(), AttentionForm::automatic, 1},
        BatchCase{"source_5_threads", test::tiny_config(), AttentionForm::automatic, 5},
        of_mla({.name = "own_rotary_keys"}, AttentionForm::automatic, 3),
        of_mla({.name = "own_rotary_keys"}, AttentionForm::absorbed, 2),
        of_mla({.name = "own_rotary_keys"}, AttentionForm::expanded, 2),
        of_mla({.name = "latent_groups", .ranks = {20, 14}, .latent_groups = 2}, AttentionForm::absorbed, 2),
        of_mla({.name = "latent_groups", .ranks = {20, 14}, .latent_groups = 2}, AttentionForm::expanded, 2),
        of_mla({.name = "nothing_unrotated", .ranks = {9, 32}, .pairs = {8, 1}}, AttentionForm::absorbed, 2),
        of_mla(with_sinks(), AttentionForm::automatic, 2), of_mla(with_sinks(), AttentionForm::absorbed, 4),
        of_mla(with_sinks(), AttentionForm::expanded, 1)),
    testing::PrintToStringParamName());

class DecoderBatch : public testing::Test {
protected:
    checkpoint::Checkpoint model_ = test::random_model(test::tiny_config(), "decoder-batch");
    test::Engine engine_{model_, {.context_tokens = 128, .sequences = 2}};
    Decoder& decoder_ = engine_.decoder;
    std::vector<int> text_ = test::random_tokens(129, 101);
    std::span<const int> tokens_ = text_;
};

TEST_F(DecoderBatch, StepsOfOneSequenceAreBitEqualToForward) {
    Sequence a = decoder_.new_sequence(), b = decoder_.new_sequence();
    decoder_.forward(a, tokens_.first(80));
    decoder_.forward(b, tokens_.first(80));
    Sequence* const sequences[] = {&b};
    for (std::size_t i = 80; i < 90; ++i) {
        const auto logits = decoder_.forward(a, tokens_.subspan(i, 1));
        const std::vector<float> expected(logits.begin(), logits.end());
        const auto seen = decoder_.decode_step(sequences, tokens_.subspan(i, 1));
        EXPECT_TRUE(std::equal(seen.begin(), seen.end(), expected.begin(), expected.end())) << "token " << i;
    }
}

TEST_F(DecoderBatch, LogitsComeForFeedsThatWantThem) {
    Sequence a = decoder_.new_sequence(), b = decoder_.new_sequence(), alone = decoder_.new_sequence();
    const Feed feeds[] = {{&a, tokens_.first(9), false}, {&b, tokens_.first(3)}};
    const auto logits = decoder_.forward(feeds);
    const Logits seen{{logits.begin(), logits.end()}};
    const auto expected = decoder_.forward(alone, tokens_.first(3));
    EXPECT_LT(relative_error(seen, {{expected.begin(), expected.end()}}), 1e-2);
    const Feed none[] = {{&a, tokens_.first(9), false}};
    EXPECT_TRUE(decoder_.forward(none).empty());
    EXPECT_EQ(a.tokens(), 18);
}

TEST_F(DecoderBatch, WhatDoesNotFitTogetherChangesNothing) {
    Sequence a = decoder_.new_sequence(), b = decoder_.new_sequence(), c = decoder_.new_sequence();
    decoder_.forward(a, tokens_.first(128));
    const Feed feeds[] = {{&b, tokens_.first(65)}, {&c, tokens_.first(1)}};
    EXPECT_THROW(decoder_.forward(feeds), core::Error);
    EXPECT_EQ(b.tokens(), 0);
    EXPECT_EQ(b.kv_bytes().allocated, 0u);
    const Feed fewer[] = {{&b, tokens_.first(64)}, {&c, tokens_.first(1)}};
    EXPECT_EQ(decoder_.forward(fewer).size(), 2u * 101);
}

TEST_F(DecoderBatch, AContextIsThatOfOneSequence) {
    Sequence a = decoder_.new_sequence();
    EXPECT_EQ(decoder_.room(a), 128);
    EXPECT_EQ(decoder_.kv_bytes().capacity, 256 * decoder_.kv_bytes_per_token());
    const Feed feeds[] = {{&a, tokens_}};
    EXPECT_THROW(decoder_.forward(feeds), core::Error);
}

TEST_F(DecoderBatch, ASequenceComesOnce) {
    Sequence a = decoder_.new_sequence();
    const Feed feeds[] = {{&a, tokens_.first(1)}, {&a, tokens_.first(1)}};
    EXPECT_THROW(decoder_.forward(feeds), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::runtime
