#include "finetune/shards.h"

#include <gtest/gtest.h>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "model/one_thread_each.h"
#include "parallel/test_support.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;

/// One of two processes that keeps a diary of its exchanges, none of which arrives.
class Diary : public parallel::Communicator {
public:
    int rank() const override { return 0; }
    int size() const override { return 2; }
    void sum(std::span<double>) const override {}
    std::unique_ptr<parallel::Exchange> begin_sum_at(int owner, parallel::Numbers values) const override {
        const auto count = std::get<std::span<float>>(values).size();
        entries.push_back("sum of " + std::to_string(count) + " at " + std::to_string(owner));
        return std::make_unique<Waited>(entries);
    }
    std::unique_ptr<parallel::Exchange> begin_broadcast(int, parallel::Numbers) const override {
        return std::make_unique<Waited>(entries);
    }

    mutable std::vector<std::string> entries;

private:
    struct Waited : parallel::Exchange {
        explicit Waited(std::vector<std::string>& entries) : entries_(entries) {}
        void wait() override { entries_.push_back("waited"); }
        std::vector<std::string>& entries_;
    };
};

Tensor parameter(std::int64_t size) { return torch::ones({size}).requires_grad_(); }

/// Its gradient is complete while those of what `x` depends on are not: the diary is asked in between.
Tensor ask(const Tensor& x, const Diary& diary, std::size_t* entries) {
    x.register_hook([&diary, entries](const Tensor&) { *entries = diary.entries.size(); });
    return x;
}

TEST(Shards, SendGradientsWhileTheBackwardPassRuns) {
    const Diary diary;
    const auto last = parameter(3), first = parameter(3);
    Shards shards({last, first}, diary, 1);
    std::size_t meanwhile = 0;
    const auto pass = [&] { (ask(first * 2, diary, &meanwhile) * last).sum().backward(); };
    pass();
    EXPECT_TRUE(diary.entries.empty()) << "not the last pass";
    shards.send_when_complete();
    pass();
    EXPECT_EQ(meanwhile, 1u);
    EXPECT_EQ(diary.entries, (std::vector<std::string>{"sum of 3 at 0", "sum of 3 at 1"}));
    shards.collect();
    EXPECT_EQ(diary.entries.size(), 4u);
}

/// All processes begin the same exchanges in the same order, whichever gradient comes first and whichever never comes.
TEST(Shards, SendBucketsInTheirOrder) {
    const Diary diary;
    const auto never = parameter(5), a = parameter(2), b = parameter(4), c = parameter(1);
    Shards shards({a, b, c, never}, diary, 3);  // buckets a and b, c and never
    shards.send_when_complete();
    (a * 2).sum().backward();
    c.sum().backward();
    EXPECT_TRUE(diary.entries.empty());
    b.sum().backward();
    EXPECT_EQ(diary.entries, (std::vector<std::string>{"sum of 6 at 0"}));
    shards.collect();
    EXPECT_EQ(diary.entries, (std::vector<std::string>{"sum of 6 at 0", "sum of 6 at 1", "waited", "waited"}));
    EXPECT_TRUE(torch::equal(never.grad(), torch::zeros({5})));
}

/// Layers may learn at once.
TEST(Shards, SendGradientsOfSeveralThreads) {
    const Diary diary;
    std::vector<Tensor> parameters;
    std::vector<std::string> expected;
    for (int i = 0; i < 60; ++i) parameters.push_back(parameter(2));
    Shards shards(parameters, diary, 1);
    for (int i = 0; i < 60; ++i) expected.push_back("sum of 2 at " + std::to_string(i % 2));
    const int threads = torch::get_num_threads();
    torch::set_num_threads(4);
    for (int pass = 0; pass < 20; ++pass) {
        diary.entries.clear();
        shards.send_when_complete();
        model::one_thread_each(60, [&](std::int64_t i) { parameters[static_cast<std::size_t>(i)].sum().backward(); });
        EXPECT_EQ(diary.entries, expected);
        shards.collect();
    }
    torch::set_num_threads(threads);
}

TEST(Shards, ForgetTheParametersTheyWatched) {
    const Diary diary;
    const auto a = parameter(2);
    Tensor loss;
    {
        Shards shards({a}, diary);
        shards.send_when_complete();
        loss = a.sum();  // holds what adds up the gradient
    }
    loss.backward();
    EXPECT_TRUE(torch::equal(a.grad(), torch::ones({2})));
    EXPECT_TRUE(diary.entries.empty());
}

TEST(Shards, AloneOwnEverything) {
    const auto a = parameter(2), b = parameter(3);
    Shards shards({a, b}, parallel::alone(), 1);
    EXPECT_EQ(shards.owned().size(), 2u);
    (a.sum() + 2 * b.sum()).backward();
    shards.collect();
    shards.distribute();
    EXPECT_TRUE(torch::equal(b.grad(), torch::full({3}, 2)));
    EXPECT_TRUE(torch::equal(b, torch::ones({3})));
    shards.clear_gradients();
    EXPECT_TRUE(torch::equal(b.grad(), torch::zeros({3})));
}

/// What only the owner has reaches all; a tensor of another process's is NaN or missing.
TEST(Shards, OwnersCollectAndDistribute) {
    parallel::test::Threads(3).run([&](const parallel::Communicator& process) {
        std::vector<Tensor> parameters;
        for (const int size : {4, 3, 2, 1}) parameters.push_back(parameter(size));
        Shards shards(parameters, process, 1);
        EXPECT_EQ(shards.owner_of(parameters[3]), 2);
        shards.send_when_complete();
        for (const auto& p : parameters) (p * (1 + process.rank())).sum().backward();
        shards.collect();
        for (const auto& p : shards.owned()) {
            EXPECT_TRUE(torch::equal(p.grad(), torch::full_like(p, 6)));
            p.detach().fill_(10 + process.rank());
        }
        shards.distribute();
        for (const auto& p : parameters) {
            EXPECT_TRUE(torch::equal(p, torch::full_like(p, 10 + shards.owner_of(p).value())));
            const auto moment = shards.owner_of(p) == process.rank() ? torch::full_like(p, 7) : Tensor();
            EXPECT_TRUE(torch::equal(shards.from_owner(p, moment), torch::full_like(p, 7)));
        }
    });
}

}  // namespace
}  // namespace mha2mla::finetune
