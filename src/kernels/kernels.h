#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/code_group.h"
#include "core/dtype.h"

/// Compute kernels: raw pointers and one parameter struct each. They know no threads, no files and no model. A caller
/// splits the work by giving disjoint ranges to its threads. Activations are float; cached rows are bf16 or f32;
/// weights may be quantized, too.
///
/// Every kernel has a portable version (the oracle of the others) and may have AVX2, AVX-512 and AMX versions.
/// `kernels()` picks the best set that the machine runs, once.
namespace mha2mla::kernels {

enum class Isa { portable, avx2, avx512, amx };  // from the least to the best

/// Output rows of one tile of a packed matrix.
inline constexpr std::int64_t tile_rows = 16;

/// Consecutive inputs that share a scale in int8 and int4 weights.
inline constexpr std::int64_t group_inputs = 32;

/// How weights are stored (bits a weight): f32; bf16; coded_bf16: the same numbers in fewer bits (about 12,
/// kernels/coded_weights.h); int8: scale * code, codes -127 to 127 (8.5); int4: scale * code + minimum, codes 0 to 15
/// (5). Scales and minima are f16, one a group of 32 inputs of an output; a last group may be shorter. int8 holds
/// GGUF's Q8_0 blocks as they are, int4 its Q4_0 and Q4_1 blocks.
enum class WeightFormat { f32, bf16, coded_bf16, int8, int4 };

/// Static, as in cpu/vector_avx2.h.
static constexpr bool is_grouped(WeightFormat format) {
    return format == WeightFormat::int8 || format == WeightFormat::int4;
}
/// "f32", "bf16", "coded-bf16", "int8", "int4".
std::string_view name_of(WeightFormat format);

/// A weight matrix [outputs, inputs] in tiles of 16 output rows. bf16: [tile][inputs / 2][16][2], so that one 64-byte
/// vector holds a pair of inputs for 16 outputs; f32: [tile][inputs][16]; int8, int4: [tile][group] blocks of
/// kernels/weight_blocks.h; coded_bf16: as kernels/coded_weights.h says. Rows beyond `outputs` and inputs that fill a
/// pair, a group or a block up are zero.
struct PackedMatrix {
    WeightFormat format = WeightFormat::bf16;
    std::int64_t outputs = 0;
    std::int64_t inputs = 0;
    const void* data = nullptr;   ///< 64-byte aligned
    std::int64_t exceptions = 0;  ///< of coded_bf16

    std::int64_t tiles() const { return (outputs + tile_rows - 1) / tile_rows; }
};

/// Bytes of a packed matrix.
std::size_t packed_bytes(WeightFormat format, std::int64_t outputs, std::int64_t inputs, std::int64_t exceptions = 0);
/// Writes rows [first_row, first_row + rows) of a row-major [outputs, inputs] matrix into packed storage that was
/// zeroed. Distinct rows may be written by several threads. Not for coded_bf16, which is made from bf16.
struct PackParams {
    const float* source;  // [rows, inputs]
    std::int64_t first_row;
    std::int64_t rows;
    WeightFormat format;
    std::int64_t inputs;
    void* packed;
};
void pack_rows(const PackParams& params);
/// The same for int4 and a source that has codes already: they are kept.
struct PackCodesParams {
    const core::CodeGroup* source;  // [rows, inputs / 32]
    std::int64_t first_row;
    std::int64_t rows;
    std::int64_t inputs;  // whole groups
    void* packed;
};
void pack_codes(const PackCodesParams& params);
/// Reads one row of a packed matrix back: out [inputs]. (Embedding lookup of a tied output matrix.)
void unpack_row(const PackedMatrix& matrix, std::int64_t row, float* out);

/// y = x Wᵀ (+ bias), or y += ... . One call computes a range of output tiles for all rows.
struct LinearParams {
    const float* x = nullptr;  // [rows, inputs]
    std::int64_t x_stride = 0;
    std::int64_t rows = 0;
    PackedMatrix weight;
    const float* bias = nullptr;  // [outputs], may be null
    float* y = nullptr;           // [rows, outputs]
    std::int64_t y_stride = 0;
    bool accumulate = false;      // add to y
    std::int64_t first_tile = 0;  // this call's output tiles
    std::int64_t tiles = 0;
    void* scratch = nullptr;  // linear_scratch_bytes(rows, inputs), 64-byte aligned, private to the call
};
/// With f32 and bf16 weights, coded or not, one to five rows read the weights once and multiply in float; more rows may
/// round x to bf16 for bf16 weights (AVX-512 does). With int8 and int4 weights, x is rounded to integers, each group of
/// 32 inputs in steps of its largest magnitude / 127, and a group's products are summed exactly: a row's result does
/// not depend on the other rows.
std::size_t linear_scratch_bytes(std::int64_t rows, std::int64_t inputs);

/// y = x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467).
struct RmsNormParams {
    const float* x = nullptr;       // [rows, width]
    const float* weight = nullptr;  // [width]
    float* y = nullptr;             // [rows, width]
    std::int64_t rows = 0;
    std::int64_t width = 0;
    float eps = 0;
};

/// Rotates pairs of head vectors: out[i] + i*out[i + n] = (x[a] + i*x[a + half]) * (cos + i*sin), a = source_pairs[i],
/// the angle of frequency f = frequencies[i] at the row's position. Also picks the rotary part out of a longer head,
/// and multiplies each pair by a complex factor first where there are any.
struct RopeParams {
    const float* x = nullptr;  // [rows, heads, ...]
    std::int64_t x_row_stride = 0;
    std::int64_t x_head_stride = 0;
    std::int64_t half = 0;  // distance of the two members of a pair in x
    float* y = nullptr;     // [rows, heads, ...]: 2 * pairs values a head; may be x where source_pairs is the identity
    std::int64_t y_row_stride = 0;
    std::int64_t y_head_stride = 0;
    std::int64_t rows = 0;
    std::int64_t heads = 0;
    std::int64_t pairs = 0;
    const std::int32_t* source_pairs = nullptr;  // [pairs], null: 0, 1, 2, ...
    const std::int32_t* frequencies = nullptr;   // [pairs], null: 0, 1, 2, ...
    const float* factors = nullptr;              // [heads, pairs, 2]: real, imaginary; null: 1
    const float* table = nullptr;                // [positions, table_pairs, 2]: cos, sin
    std::int64_t table_pairs = 0;
    std::int64_t first_position = 0;  // of row 0; row r is at first_position + r
};

/// Rotates the pairs (i, i + pairs) of rows backwards: y = x (cos - i sin), one angle a pair.
struct TurnParams {
    const float* x = nullptr;  // [rows, 2 * pairs]
    float* y = nullptr;        // likewise
    std::int64_t rows = 0;
    std::int64_t pairs = 0;
    const float* cos = nullptr;  // [pairs]
    const float* sin = nullptr;  // [pairs]
};

/// y = silu(gate) * up (arXiv 2002.05202).
struct SwiGluParams {
    const float* gate = nullptr;  // [count]
    const float* up = nullptr;    // [count]
    float* y = nullptr;           // [count], may be gate or up
    std::int64_t count = 0;
};

/// Converts float rows to cached rows.
struct StoreRowsParams {
    const float* x = nullptr;  // [rows, width]
    std::int64_t x_stride = 0;
    std::int64_t rows = 0;
    std::int64_t width = 0;
    core::DType dtype = core::DType::bf16;
    void* y = nullptr;
    std::int64_t y_stride_bytes = 0;
};

/// Groups of codes are multiples of this.
inline constexpr std::int64_t group_unit = 8;

/// Rows as codes of a few bits: an element is zero + code * scale (cache/group_quantizer.h). A row's codes are packed
/// from the low bits of a byte on. Scale and zero, both bf16, lie side by side: [rows, groups][2] for groups within a
/// row, [width][2] where all rows share those of a channel.
struct CodedRows {
    int bits = 16;                         // of a code: 8, 4 or 2; 16: not codes but bf16 numbers; 32: float
    std::int64_t width = 0;                // elements
    std::int64_t group = 0;                // elements of a group, a multiple of group_unit; 0: groups are channels
    std::int64_t row_bytes = 0;            // from one row's codes to the next
    std::int64_t offset_bytes = 0;         // of row 0, from where the block starts
    std::int64_t scales_offset_bytes = 0;  // likewise
};

/// Reads rows of coded parts that lie side by side: y = [part 0 | part 1].
struct LoadRowsParams {
    const void* block = nullptr;  // what the offsets of the parts start from
    CodedRows parts[2];           // the second may have no width
    std::int64_t first_row = 0;
    std::int64_t rows = 0;
    float* y = nullptr;         // [rows, y_stride]
    std::int64_t y_stride = 0;  // at least the parts' width + group_unit - 1; what lies beyond the width is undefined
};

/// A run of consecutive cached tokens, usually a page: key rows and value rows, which may overlap (a latent is both).
/// Of a sealed block the pointers are where the offsets of AttentionParams::sealed start from.
struct KeyValueBlock {
    const void* keys = nullptr;    // [tokens, key_width]
    const void* values = nullptr;  // [tokens, value_width]
    std::int64_t tokens = 0;
    bool sealed = false;
};

/// How sealed blocks keep a token. Its key is [part 0 | part 1]. Where keys and values of a block start at the same
/// place, the value is the first part of the key.
struct SealedFormat {
    CodedRows keys[2];
    CodedRows values;
};

/// Attention of query rows over keys that all of them share: the query heads of one KV head (GQA), or those over one
/// latent (absorbed MLA: the key is [latent | rotary keys], the value is the latent). One pass with an online
/// softmax over the key range [first_key, end_key) of the blocks; row m sees keys below visible[m]. Memory beyond a
/// row's width and keys that no row sees are not read. Output is unnormalized: out = sum of exp(s - max) * v; a merge
/// of all ranges divides by the sum. With bf16 rows the scaled query and the probabilities may be rounded to bf16
/// (AVX-512 does), and the sum is that of the rounded probabilities; with f32 rows all is float. Sealed latents of 4
/// bits by channel may be multiplied as codes, by queries and probabilities of 8 bits (all but portable do); other
/// sealed elements may be rounded to bf16 (AVX-512 does). Positions stay below 2^24. A caller may add to every logit:
/// logit_bias is indexed by block of logit_bias_block_tokens keys, row and the key's number in that block, and what it
/// holds for a key that the row does not see has no effect. A call may go on with what one of the same rows over other
/// keys left.
struct AttentionParams {
    core::DType dtype = core::DType::bf16;  // of keys and values
    const float* q = nullptr;               // [rows, key_width]
    std::int64_t q_stride = 0;
    std::int64_t rows = 0;
    std::int64_t key_width = 0;
    std::int64_t value_width = 0;
    std::int64_t key_stride_bytes = 0;
    std::int64_t value_stride_bytes = 0;
    float scale = 0;
    const float* logit_bias = nullptr;         // added to scale * q . k; may be null
    std::int64_t logit_bias_block_tokens = 0;  // a multiple of block_tokens
    std::int64_t logit_bias_block_stride = 0;
    std::int64_t logit_bias_stride = 0;       // from one row to the next
    std::int64_t logit_bias_first_block = 0;  // the block that logit_bias starts with
    const KeyValueBlock* blocks = nullptr;    // all hold block_tokens tokens but the last
    std::int64_t block_tokens = 0;
    SealedFormat sealed = {};    // of the sealed blocks among them, if any
    std::int64_t first_key = 0;  // this call's keys
    std::int64_t end_key = 0;
    const std::int64_t* visible = nullptr;  // [rows]
    float* out = nullptr;                   // [rows, value_width]
    std::int64_t out_stride = 0;
    float* max = nullptr;    // [rows], of the logits; -inf where the row saw no key
    float* sum = nullptr;    // [rows], 0 where the row saw no key
    bool continues = false;  // out, max and sum are those of an earlier call, and are added to
    void* scratch =
        nullptr;  // attention_scratch_bytes(rows, key_width, value_width), 64-byte aligned, private to the call
};
/// The same for any number of rows: rows pass in blocks.
std::size_t attention_scratch_bytes(std::int64_t rows, std::int64_t key_width, std::int64_t value_width);

/// Merges the partial results of key ranges by log-sum-exp and normalizes. out may be partial 0's; a row that saw no
/// key in any part becomes zeros.
struct MergeParams {
    const float* partial = nullptr;  // [parts, rows, width]
    const float* max = nullptr;      // [parts, rows]
    const float* sum = nullptr;      // [parts, rows]
    std::int64_t parts = 0;
    std::int64_t rows = 0;
    std::int64_t width = 0;
    float* out = nullptr;  // [rows, width]
    std::int64_t out_stride = 0;
    std::int64_t part_rows = 0;  // rows from one part to the next; 0: `rows`
    float* log_sum = nullptr;    // [rows], may be null: log of the sum of exp(logit) over all parts; -inf without a key
};

/// One implementation of every kernel.
struct KernelSet {
    Isa isa;
    void (*linear)(const LinearParams&);
    void (*rms_norm)(const RmsNormParams&);
    void (*rope)(const RopeParams&);
    void (*turn)(const TurnParams&);
    void (*swiglu)(const SwiGluParams&);
    void (*store_rows)(const StoreRowsParams&);
    void (*load_rows)(const LoadRowsParams&);
    void (*attention)(const AttentionParams&);
    void (*merge)(const MergeParams&);
};

/// The best set of this machine, or the one that MHA2MLA_ISA=portable|avx2|avx512|amx names. Throws Error where that
/// one cannot run.
const KernelSet& kernels();
/// A given set. Throws Error where the machine lacks it.
const KernelSet& kernels(Isa isa);
/// Every set that this machine runs, portable first.
std::vector<Isa> supported_isas();
std::string_view name_of(Isa isa);

}  // namespace mha2mla::kernels
