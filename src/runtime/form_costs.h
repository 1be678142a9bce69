#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "runtime/decoder.h"

namespace mha2mla::runtime {

/// What the cost of a layer's latent attention depends on. Letters as in runtime/weights.h.
struct LatentSizes {
    std::int64_t heads = 0;         // H
    std::int64_t kv_heads = 0;      // G
    std::int64_t kv_lora_rank = 0;  // R
    std::int64_t rotary_width = 0;  // K dr, of a cached row
    std::int64_t key_width = 0;     // dn + dr, of an expanded key
    std::int64_t nope_width = 0;    // dn
    std::int64_t value_width = 0;   // dv
};

/// Tokens that attend, and how many are cached by then, theirs among them.
struct ChunkSizes {
    std::int64_t queries = 0;
    std::int64_t keys = 0;
};

/// Picoseconds of a unit of work. Only their ratios matter, and they are constants of an instruction set rather than
/// measured at each start, so that a model says the same every time. tools/fit_form_costs.py measures them.
struct FormCosts {
    double attended;  // a multiply-add of a query with a cached row
    double rebuilt;   // a multiply-add that rebuilds keys and values, or folds queries into latent space
    double moved;     // a number that rebuilding loads or stores
};

FormCosts form_costs(kernels::Isa isa);

/// Picoseconds of the two forms; what both have in common is left out.
double absorbed_cost(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs);
double expanded_cost(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs);

/// The cheaper form.
AttentionForm cheaper_form(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs);

}  // namespace mha2mla::runtime
