#pragma once

#include <cstddef>
#include <span>

namespace mha2mla::core {

/// Bytes of memory that this machine has.
std::size_t physical_memory_bytes();

/// The most bytes that this process held in memory at once so far, pages of mapped files included.
std::size_t peak_memory_bytes();

/// The most that malloc takes for a limit, 32 MB.
inline constexpr std::size_t large_block_bytes = std::size_t{32} << 20;

/// From now on freed memory stays with this process, until return_freed_memory: training asks for the same blocks again
/// every step, and the system would clear each page anew. But for blocks from large_block_bytes on, which go back at
/// once (model/large_blocks.h keeps LibTorch's).
void keep_freed_memory();

/// Gives memory that has been freed, wherever it lies, back to the system.
void return_freed_memory();

/// Gives the pages of a mapped file back to the system, which reads them again where they are asked for: a model that
/// is read layer by layer then takes the memory of a layer. Whole pages within the range only.
void release_pages(std::span<const std::byte> mapped);

}  // namespace mha2mla::core
