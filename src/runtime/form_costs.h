#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "runtime/decoder.h"

namespace mha2mla::runtime {

/// What the cost of a layer's latent attention depends on. Letters as in runtime/weights.h.
struct LatentSizes {
    std::int64_t heads = 0;         // H
    std::int64_t kv_heads = 0;      // G
    std::int64_t head_rank = 0;     // R / L
    std::int64_t rotary_width = 0;  // K dr / L, of a cached row
    std::int64_t key_width = 0;     // dn + dr, of an expanded key
    std::int64_t nope_width = 0;    // dn
    std::int64_t value_width = 0;   // dv
};

/// Tokens that attend, and how many are cached by then, theirs among them.
struct ChunkSizes {
    std::int64_t queries = 0;
    std::int64_t keys = 0;
};

/// The cost of a unit of work, in picoseconds where it was measured. Only ratios matter. They were measured once for
/// each instruction set (tools/fit_form_costs.py: bf16 weights, int4-c caches, two threads) and not when a program
/// starts: what a model says must not depend on how long something took. Formats of weights and caches are not told
/// apart, nor that a rebuilt page keeps one thread busy.
struct FormCosts {
    double attended;  // a multiply-add of a query with a cached row
    double rebuilt;   // a multiply-add that rebuilds keys and values, or folds queries into latent space
    double moved;     // a number that rebuilding loads or stores
};

FormCosts form_costs(kernels::Isa isa);

/// The cost of the two forms but for what they have in common.
///
/// Absorbed: every query is folded into latent space, once, meets rows [latent | rotary keys] and sums up latents.
/// Expanded: the keys and values of every KV head are rebuilt from all cached rows, once a chunk; queries meet these.
double absorbed_cost(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs);
double expanded_cost(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs);

/// The cheaper form.
AttentionForm cheaper_form(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs);

}  // namespace mha2mla::runtime
