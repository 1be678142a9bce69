#include "cache/arena.h"

#include <string>
#include <sys/mman.h>
#include <utility>

#include "core/error.h"

namespace mha2mla::cache {

Arena::Arena(std::size_t bytes, PageSize pages) : size_(bytes) {
    if (bytes == 0) return;
    void* const memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        throw core::Error({.what = "cannot reserve " + std::to_string(bytes >> 20) + " MB of memory",
                           .remedy = "pass a smaller --context, or free memory"});
    }
    data_ = static_cast<std::byte*>(memory);
    if (pages == PageSize::huge) madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: normal pages serve as well
}

Arena::~Arena() {
    if (data_ != nullptr) munmap(data_, size_);
}

Arena::Arena(Arena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

}  // namespace mha2mla::cache
