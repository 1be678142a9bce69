#pragma once

#include <cstdint>

/// Asking for memory before it is read. Lines go to the second-level cache: asked into the first, they came slower
/// (docs/results/2026-11-28-amx.md).
///
/// All of these functions are always inlined: GCC takes one that only asks for memory for one without an effect, and
/// drops its calls.
namespace mha2mla::kernels {

inline constexpr std::int64_t line_bytes = 64;
/// Weights are asked for so many bytes before their use, all tiles of a micro-kernel together: the processor's own
/// prefetching stops at every 4,096 bytes.
inline constexpr std::int64_t weight_bytes_ahead = 8192;

[[gnu::always_inline]] static inline void fetch(const char* begin, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += line_bytes) __builtin_prefetch(begin + i, 0, 2);
}

/// A range that is asked for little by little, so that reading it never holds up what is computed meanwhile.
struct MemoryAhead {
    const char* at = nullptr;
    const char* end = nullptr;
    std::int64_t step = 0;  // bytes

    [[gnu::always_inline]] void fetch_some() {
        if (at >= end) return;
        fetch(at, step);
        at += step;
    }
};

}  // namespace mha2mla::kernels
