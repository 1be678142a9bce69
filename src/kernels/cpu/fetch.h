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

struct MemoryRange {
    const char* begin = nullptr;
    std::int64_t bytes = 0;
};

/// A range that is asked for little by little, so that reading it never holds up what is computed meanwhile.
struct MemoryAhead {
    const char* at;
    const char* end;
    std::int64_t step;  // bytes
};

/// All of it within so many steps.
[[gnu::always_inline]] static inline MemoryAhead in_steps(const MemoryRange& range, std::int64_t steps) {
    const std::int64_t lines = (range.bytes + steps * line_bytes - 1) / (steps * line_bytes);
    return {range.begin, range.begin + range.bytes, lines * line_bytes};
}

[[gnu::always_inline]] static inline void fetch_some(MemoryAhead& ahead) {
    if (ahead.at >= ahead.end) return;
    fetch(ahead.at, ahead.step);
    ahead.at += ahead.step;
}

}  // namespace mha2mla::kernels
