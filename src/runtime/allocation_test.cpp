#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <new>

#include "runtime/engine.h"
#include "runtime/oracle.h"

// Every allocation of this test binary is counted. Weak, because Clang's sanitizers bring operators of their own.
namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t bytes) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
    throw std::bad_alloc();
}

}  // namespace

[[gnu::weak]] void* operator new(std::size_t bytes) { return counted(bytes); }
[[gnu::weak]] void* operator new[](std::size_t bytes) { return counted(bytes); }
[[gnu::weak]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::weak]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::weak]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::weak]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace mha2mla::runtime {
namespace {

/// Allocations of 100 decode steps, which cross page borders, after a prompt.
long allocations_of_decode(const checkpoint::Checkpoint& model, const std::string& format = "bf16") {
    test::Engine engine(model, {.kv_cache = cache::parse_cache_format(format, "test")});
    const auto tokens = test::random_tokens(200, 101);
    Sequence sequence = engine.decoder.new_sequence();
    engine.decoder.forward(sequence, std::span(tokens).first(99));
    const long before = allocations.load();
    for (std::size_t i = 100; i < 200; ++i) engine.decoder.forward(sequence, std::span(&tokens[i], 1));
    return allocations.load() - before;
}

/// Allocations of 100 steps of an engine whose requests generate.
long allocations_of_engine(const checkpoint::Checkpoint& model) {
    test::Engine base(model, {.context_tokens = 320, .sequences = 5});
    Engine engine(base.decoder, base.pool, 5);
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
        engine.submit(
            {.prompt = test::random_tokens(20 + 30 * static_cast<int>(seed), 101, seed),
             .options = {.sampling = {.temperature = 1, .top_k = 20, .top_p = 0.9, .seed = seed}, .max_tokens = 150}});
    }
    const auto none_ends = [](const EngineResult&) { FAIL() << "a request ended"; };
    for (int step = 0; step < 10; ++step) engine.step(none_ends);
    const long before = allocations.load();
    for (int step = 0; step < 100; ++step) engine.step(none_ends);
    return allocations.load() - before;
}

class Allocation : public testing::Test {
protected:
    void SetUp() override {
        const long before = allocations.load();
        const test::Engine engine(test::open_fixture("tiny-mha"), {});
        if (allocations.load() == before) GTEST_SKIP() << "a sanitizer's operators are in place of ours";
    }
};

TEST_F(Allocation, SteadyDecodingOfASourceModelAllocatesNothing) {
    EXPECT_EQ(allocations_of_decode(test::random_model(test::tiny_config(), "allocation")), 0);
}

TEST_F(Allocation, SteadyDecodingOfManyRequestsAllocatesNothing) {
    EXPECT_EQ(allocations_of_engine(test::random_model(test::tiny_config(), "allocation-engine")), 0);
    const auto config =
        test::tiny_mla_config({.name = "exact", .factors = true, .positional_part = true, .sink_tokens = 4});
    EXPECT_EQ(allocations_of_engine(test::random_model(config, "allocation-engine-exact")), 0);
}

TEST_F(Allocation, SteadyDecodingOfAnMlaModelAllocatesNothing) {
    const auto config = test::tiny_mla_config({.name = "latent"});
    EXPECT_EQ(allocations_of_decode(test::random_model(config, "allocation-mla")), 0);
}

TEST_F(Allocation, SteadyDecodingWithAllOptionalPartsAllocatesNothing) {
    const auto config =
        test::tiny_mla_config({.name = "exact", .factors = true, .positional_part = true, .sink_tokens = 4});
    EXPECT_EQ(allocations_of_decode(test::random_model(config, "allocation-exact")), 0);
}

TEST_F(Allocation, SealingPagesAllocatesNothing) {
    const auto config = test::tiny_mla_config({.name = "sealed", .positional_part = true, .sink_tokens = 4});
    EXPECT_EQ(allocations_of_decode(test::random_model(config, "allocation-sealed"), "int4"), 0);
    EXPECT_EQ(allocations_of_decode(test::random_model(test::tiny_config(), "allocation-kivi"), "kivi2"), 0);
}

}  // namespace
}  // namespace mha2mla::runtime
