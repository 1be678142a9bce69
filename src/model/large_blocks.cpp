#include "model/large_blocks.h"

#include <algorithm>
#include <c10/core/CPUAllocator.h>
#include <map>
#include <mutex>
#include <utility>

#include "core/memory.h"

namespace mha2mla::model {
namespace {

class LargeBlocks : public c10::Allocator {
public:
    /// For good: tensors may outlive whatever else there is.
    static LargeBlocks& instance() {
        static auto* const blocks = new LargeBlocks;
        return *blocks;
    }

    c10::DataPtr allocate(std::size_t bytes) override {
        if (bytes < core::large_block_bytes) return plain_.allocate(bytes);
        Block block = take(bytes);
        if (block.bytes == 0) block = {plain_.allocate(bytes), bytes};
        void* const data = block.memory.get();
        const std::lock_guard lock(mutex_);
        in_use_.emplace(data, std::move(block));
        return {data, data, &give_back, c10::Device(c10::kCPU)};
    }

    /// Of large blocks and of others: LibTorch's libraries ask for bare pointers.
    c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
    void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

private:
    struct Block {
        c10::DataPtr memory;
        std::size_t bytes = 0;
    };

    /// The smallest free block of that size up to half as much again; else one of no bytes, and none stays free.
    Block take(std::size_t bytes) {
        std::multimap<std::size_t, Block> unfit;  // goes back to the system once others may go on
        const std::lock_guard lock(mutex_);
        const auto found = free_.lower_bound(bytes);
        if (found == free_.end() || found->first > bytes + bytes / 2) {
            std::swap(unfit, free_);
            return {};
        }
        return std::move(free_.extract(found).mapped());
    }

    static void give_back(void* data) {
        LargeBlocks& blocks = instance();
        {
            const std::lock_guard lock(blocks.mutex_);
            if (auto block = blocks.in_use_.extract(data)) {
                const std::size_t bytes = block.mapped().bytes;
                blocks.free_.emplace(bytes, std::move(block.mapped()));
                return;
            }
        }
        blocks.plain_.raw_deallocate(data);
    }

    c10::Allocator& plain_ = *c10::GetDefaultCPUAllocator();
    std::mutex mutex_;
    std::map<void*, Block> in_use_;
    std::multimap<std::size_t, Block> free_;  // by bytes
};

}  // namespace

void keep_large_blocks() { c10::SetCPUAllocator(&LargeBlocks::instance()); }

}  // namespace mha2mla::model
