#include "model/large_blocks.h"

#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

namespace mha2mla::model {
namespace {

constexpr auto megabyte = std::int64_t{1} << 20;

torch::Tensor block_of(std::int64_t bytes) { return torch::empty({bytes}, torch::kUInt8); }

class LargeBlocksTest : public testing::Test {
protected:
    LargeBlocksTest() {
        keep_large_blocks();
        block_of(1000 * megabyte);  // fits none: what other tests left free is gone
    }
    ~LargeBlocksTest() override { c10::SetCPUAllocator(c10::GetDefaultCPUAllocator()); }
};

TEST_F(LargeBlocksTest, AFreedBlockIsUsedAgainForOneThatIsNotMuchSmaller) {
    void* const first = block_of(60 * megabyte).data_ptr();
    EXPECT_EQ(block_of(60 * megabyte).data_ptr(), first);
    EXPECT_EQ(block_of(41 * megabyte).data_ptr(), first);
}

TEST_F(LargeBlocksTest, OneInUseIsNot) {
    const auto first = block_of(60 * megabyte);
    const auto second = block_of(60 * megabyte);
    EXPECT_NE(second.data_ptr(), first.data_ptr());
    second.fill_(1);
    first.fill_(2);
    EXPECT_EQ(second.min().item<int>(), 1);
}

TEST_F(LargeBlocksTest, TheSmallestThatFitsIsTaken) {
    void *large = nullptr, *small = nullptr;
    {
        const auto a = block_of(50 * megabyte), b = block_of(45 * megabyte);
        large = a.data_ptr();
        small = b.data_ptr();
    }
    const auto first = block_of(44 * megabyte), second = block_of(44 * megabyte);
    EXPECT_EQ(first.data_ptr(), small);
    EXPECT_EQ(second.data_ptr(), large);
}

TEST_F(LargeBlocksTest, BarePointersGoBackToo) {  // as oneDNN takes and returns them
    c10::Allocator& allocator = *c10::GetCPUAllocator();
    void* const large = allocator.raw_allocate(60 * megabyte);
    void* const small = allocator.raw_allocate(1000);
    allocator.raw_deallocate(large);
    allocator.raw_deallocate(small);
    EXPECT_EQ(block_of(60 * megabyte).data_ptr(), large);
}

}  // namespace
}  // namespace mha2mla::model
