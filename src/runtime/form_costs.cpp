#include "runtime/form_costs.h"

namespace mha2mla::runtime {
namespace {

/// Pairs of a query and a key that it sees.
double seen_pairs(ChunkSizes chunk) {
    const auto queries = static_cast<double>(chunk.queries);
    return queries * static_cast<double>(chunk.keys) - queries * (queries - 1) / 2;
}

}  // namespace

// docs/results/2026-11-29-form-costs.md. Nobody waits for the portable set, the others' oracle.
FormCosts form_costs(kernels::Isa isa) {
    switch (isa) {
        case kernels::Isa::portable: return {.attended = 1, .rebuilt = 1, .moved = 1};
        case kernels::Isa::avx2: return {.attended = 15.9, .rebuilt = 19.2, .moved = 267};
        case kernels::Isa::avx512: return {.attended = 1.5, .rebuilt = 2.7, .moved = 29.1};
        case kernels::Isa::amx: return {.attended = 6.5, .rebuilt = 3, .moved = 199};
    }
    return {};
}

double absorbed_cost(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs) {
    const double row = static_cast<double>(2 * layer.head_rank + layer.rotary_width);
    const double attended = seen_pairs(chunk) * static_cast<double>(layer.heads) * row;
    const double folded = static_cast<double>(chunk.queries * layer.heads) *
                          static_cast<double>(layer.head_rank * (layer.nope_width + layer.value_width));
    return costs.attended * attended + costs.rebuilt * folded;
}

double expanded_cost(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs) {
    const double row = static_cast<double>(layer.key_width + layer.value_width);
    const double attended = seen_pairs(chunk) * static_cast<double>(layer.heads) * row;
    const auto rows = static_cast<double>(chunk.keys * layer.kv_heads);
    const auto rebuilt = static_cast<double>(layer.head_rank * (layer.nope_width + layer.value_width));
    const double moved = static_cast<double>(layer.head_rank + layer.rotary_width) + row;
    return costs.attended * attended + rows * (costs.rebuilt * rebuilt + costs.moved * moved);
}

AttentionForm cheaper_form(const LatentSizes& layer, ChunkSizes chunk, const FormCosts& costs) {
    return absorbed_cost(layer, chunk, costs) <= expanded_cost(layer, chunk, costs) ? AttentionForm::absorbed
                                                                                    : AttentionForm::expanded;
}

}  // namespace mha2mla::runtime
