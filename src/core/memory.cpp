#include "core/memory.h"

#include <malloc.h>

#include <cstdint>
#include <limits>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/error.h"

namespace mha2mla::core {
namespace {

std::size_t page_bytes() {
    const long bytes = ::sysconf(_SC_PAGESIZE);
    invariant(bytes > 0, "the system knows the size of its pages");
    return static_cast<std::size_t>(bytes);
}

}  // namespace

std::size_t physical_memory_bytes() {
    const long pages = ::sysconf(_SC_PHYS_PAGES);
    invariant(pages > 0, "the system knows its memory");
    return static_cast<std::size_t>(pages) * page_bytes();
}

std::size_t peak_memory_bytes() {
    struct rusage usage {};
    invariant(::getrusage(RUSAGE_SELF, &usage) == 0, "a process may ask for its own usage");
    constexpr std::size_t kilobyte = 1024;  // the unit of ru_maxrss on Linux
    return static_cast<std::size_t>(usage.ru_maxrss) * kilobyte;
}

void keep_freed_memory() {
    ::mallopt(M_MMAP_THRESHOLD, static_cast<int>(large_block_bytes));
    ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

void return_freed_memory() { ::malloc_trim(0); }

void release_pages(std::span<const std::byte> mapped) {
    const std::size_t page = page_bytes();
    const auto address = reinterpret_cast<std::uintptr_t>(mapped.data());
    const auto begin = (address + page - 1) / page * page;
    const auto end = (address + mapped.size()) / page * page;
    // A refusal costs memory and nothing else.
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace mha2mla::core
