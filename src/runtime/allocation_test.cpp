#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <new>

#include "runtime/oracle.h"

// Every allocation of this test binary is counted.
namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t bytes) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
    throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes); }
void* operator new[](std::size_t bytes) { return counted(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace mha2mla::runtime {
namespace {

/// Allocations of 100 decode steps, which cross page borders, after a prompt.
long allocations_of_decode(const checkpoint::Checkpoint& model) {
    test::Engine engine(model, {});
    const auto tokens = test::random_tokens(200, 101);
    Sequence sequence = engine.decoder.new_sequence();
    engine.decoder.forward(sequence, std::span(tokens).first(99));
    const long before = allocations.load();
    for (std::size_t i = 100; i < 200; ++i) engine.decoder.forward(sequence, std::span(&tokens[i], 1));
    return allocations.load() - before;
}

TEST(Allocation, IsCounted) {
    const long before = allocations.load();
    const std::vector<int> numbers(1000);
    EXPECT_GT(allocations.load(), before);
}

TEST(Allocation, SteadyDecodingOfASourceModelAllocatesNothing) {
    EXPECT_EQ(allocations_of_decode(test::random_model(test::tiny_config(), "allocation")), 0);
}

TEST(Allocation, SteadyDecodingOfAnMlaModelAllocatesNothing) {
    const auto config = test::tiny_mla_config({.name = "latent"});
    EXPECT_EQ(allocations_of_decode(test::random_model(config, "allocation-mla")), 0);
}

}  // namespace
}  // namespace mha2mla::runtime
