#include "finetune/teacher.h"

#include <gtest/gtest.h>
#include <memory>
#include <vector>

#include "finetune/test_support.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;

class TeacherTest : public testing::Test {
protected:
    TeacherTest() : pair_(directory_.path()), source_(pair_.load_source()) {
        torch::set_num_threads(1);
        of_model_ = make_teacher(source_, false);
        of_states_ = make_teacher(SourceNorms(source_), std::make_unique<test::TorchStates>(source_));
    }

    checkpoint::test::TemporaryDirectory directory_;
    test::TinyPair pair_;
    model::CausalLm source_;
    std::unique_ptr<Teacher> of_model_;
    std::unique_ptr<Teacher> of_states_;
    const std::vector<std::vector<int>> windows_ = test::tiny_windows();
    const MicroBatch batch_{windows_, std::vector<std::size_t>{0, 1, 2}, torch::kCPU};  // of 8, 9 and 10 tokens
};

Tensor without_padding(const Tensor& x_BTE, const MicroBatch& batch) {
    return x_BTE.flatten(0, 1).index_select(0, batch.positions());
}

/// The norms of states are of bf16, those of a model in fp32 are not.
void expect_equal_but_for_rounding(const Tensor& rounded, const Tensor& exact) {
    EXPECT_EQ(rounded.scalar_type(), torch::kBFloat16);
    EXPECT_TRUE(torch::allclose(rounded.to(torch::kFloat32), exact, 1.0 / 256, 0));
}

TEST_F(TeacherTest, OfStatesTeachesWhatTheModelDoes) {
    std::vector<AttentionLesson> expected;
    of_model_->for_each_layer(batch_, [&](std::size_t layer, const AttentionLesson& lesson) {
        EXPECT_EQ(layer, expected.size());
        expected.push_back(lesson);
    });
    std::size_t layers = 0;
    of_states_->for_each_layer(batch_, [&](std::size_t layer, const AttentionLesson& lesson) {
        ASSERT_EQ(layer, layers++);
        const auto& wanted = expected[layer];
        const auto rows = [&](const Tensor& x_BTE) { return without_padding(x_BTE, batch_); };
        expect_equal_but_for_rounding(rows(lesson.input_BTE), rows(wanted.input_BTE));
        EXPECT_TRUE(torch::allclose(rows(lesson.output_BTE), rows(wanted.output_BTE), 1e-4, 1e-5));
        EXPECT_TRUE(torch::allclose(rows(lesson.residual_BTE), rows(wanted.residual_BTE), 1e-4, 1e-6));
        EXPECT_TRUE(lesson.residual_BTE[0].slice(0, 8).eq(0).all().item<bool>()) << "padding";
        EXPECT_FALSE(lesson.output_BTE.requires_grad());
    });
    EXPECT_EQ(layers, expected.size());
}

TEST_F(TeacherTest, OfStatesHasTheModelsHead) {
    const auto hidden = of_states_->hidden(batch_);
    expect_equal_but_for_rounding(without_padding(hidden, batch_), without_padding(of_model_->hidden(batch_), batch_));
    EXPECT_TRUE(torch::equal(of_states_->output_matrix(), source_->output_matrix().to(torch::kBFloat16)));
}

}  // namespace
}  // namespace mha2mla::finetune
