#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <span>

#include "core/error.h"
#include "kernels/coded_weights.h"

namespace mha2mla::kernels {
namespace {

constexpr int high_byte_values = 256;
constexpr int codes = 15;  // besides code 0
constexpr std::int64_t vector_words = 2 * tile_rows;

std::span<const std::uint16_t> words_of_tile(const PackedMatrix& weights, std::int64_t tile) {
    const std::int64_t words = (weights.inputs + 1) / 2 * 2 * tile_rows;
    return {static_cast<const std::uint16_t*>(weights.data) + tile * words, static_cast<std::size_t>(words)};
}

int high_byte(std::uint16_t word) { return word >> 8; }

/// How often each high byte occurs; 0 has a code of its own and does not count. Four counts side by side, since equal
/// neighbours would wait for each other.
std::array<std::uint32_t, high_byte_values> count_high_bytes(std::span<const std::uint16_t> words) {
    std::array<std::array<std::uint32_t, high_byte_values>, 4> counts{};
    for (std::size_t i = 0; i < words.size(); ++i) counts[i % 4][static_cast<std::size_t>(high_byte(words[i]))] += 1;
    std::array<std::uint32_t, high_byte_values> sums{};
    for (const auto& part : counts) {
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += part[i];
    }
    sums[0] = 0;
    return sums;
}

/// The code of each high byte, 0 also where it has none.
std::array<std::uint8_t, high_byte_values> codes_of(const CodedTile& head) {
    std::array<std::uint8_t, high_byte_values> result{};
    for (std::uint8_t code = 1; code <= codes; ++code) result[head.high_bytes[code]] = code;
    return result;
}

/// Where a weight lies in the blocks of its tile.
struct Place {
    std::int64_t block;
    std::int64_t half;  // of the block's inputs, and of a byte of codes
    std::int64_t byte;
};

Place place_of(std::int64_t input, std::int64_t output) {
    const std::int64_t word = 2 * output + input % 2;  // of a vector of a bf16 tile
    return {.block = input / coded_inputs, .half = input / 4 % 2, .byte = word / 8 * 16 + input / 2 % 2 * 8 + word % 8};
}

/// Words whose bytes lie side by side in a block, too.
constexpr std::size_t run_words = 8;

struct TileCoder {
    std::array<std::uint8_t, high_byte_values> code_of;
    WeightException* exceptions;

    /// Words from number `first` of the tile on.
    void code_run(std::span<const std::uint16_t, run_words> words, std::int64_t first, CodedBlock* blocks) {
        const auto input_of = [&](std::int64_t i) { return (first + i) / vector_words * 2 + i % 2; };
        const auto output_of = [&](std::int64_t i) { return (first + i) % vector_words / 2; };
        const Place place = place_of(input_of(0), output_of(0));
        std::uint8_t* const code_bytes = blocks[place.block].codes + place.byte;
        std::uint8_t* const low_bytes = blocks[place.block].low_bytes[place.half] + place.byte;
        for (std::size_t i = 0; i < run_words; ++i) {
            const std::uint8_t code = code_of[static_cast<std::size_t>(high_byte(words[i]))];
            code_bytes[i] = static_cast<std::uint8_t>(code_bytes[i] | code << (4 * place.half));
            low_bytes[i] = static_cast<std::uint8_t>(words[i]);
            if (code != 0 || high_byte(words[i]) == 0) continue;
            low_bytes[i] = 0;
            const auto at = static_cast<std::int64_t>(i);
            *exceptions++ = {
                static_cast<std::uint32_t>(input_of(at)), static_cast<std::uint16_t>(output_of(at)), {words[i]}};
        }
    }
};

}  // namespace

std::size_t coded_bytes(std::int64_t tiles, std::int64_t inputs, std::int64_t exceptions) {
    return static_cast<std::size_t>(tiles * coded_tile_bytes(inputs)) +
           static_cast<std::size_t>(exceptions) * sizeof(WeightException);
}

CodedTile choose_codes(const PackedMatrix& weights, std::int64_t tile) {
    core::invariant(weights.format == WeightFormat::bf16, "bf16 weights are coded");
    const auto counts = count_high_bytes(words_of_tile(weights, tile));
    std::array<std::uint8_t, high_byte_values> order{};
    std::iota(order.begin(), order.end(), std::uint8_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return counts[a] > counts[b]; });
    CodedTile head{};
    std::copy_n(order.begin(), codes, head.high_bytes + 1);
    for (std::size_t rest = codes; rest < order.size(); ++rest) head.exceptions += counts[order[rest]];
    return head;
}

std::int64_t number_exceptions(std::span<CodedTile> heads) {
    std::int64_t exceptions = 0;
    for (CodedTile& head : heads) {
        head.first_exception = static_cast<std::uint32_t>(exceptions);
        exceptions += head.exceptions;
    }
    return exceptions;
}

void code_tile(const CodeTileParams& params) {
    const PackedMatrix& weights = params.weights;
    auto* const data = static_cast<std::byte*>(params.data);
    const std::int64_t tile_bytes = coded_tile_bytes(weights.inputs);
    std::byte* const tile = data + params.tile * tile_bytes;
    std::memcpy(tile, &params.head, sizeof params.head);
    TileCoder coder{.code_of = codes_of(params.head),
                    .exceptions = reinterpret_cast<WeightException*>(data + weights.tiles() * tile_bytes) +
                                  params.head.first_exception};
    auto* const blocks = reinterpret_cast<CodedBlock*>(tile + sizeof params.head);
    const auto words = words_of_tile(weights, params.tile);
    for (std::size_t i = 0; i < words.size(); i += run_words) {
        coder.code_run(words.subspan(i).first<run_words>(), static_cast<std::int64_t>(i), blocks);
    }
}

float coded_weight(const CodedTileView& tile, std::int64_t input, std::int64_t output) {
    const Place place = place_of(input, output);
    const CodedBlock& block = tile.blocks[place.block];
    const int code = block.codes[place.byte] >> (4 * place.half) & 15;
    const int word = tile.head.high_bytes[code] << 8 | block.low_bytes[place.half][place.byte];
    return core::to_float(core::bf16{static_cast<std::uint16_t>(word)});
}

void unpack_coded_row(const PackedMatrix& matrix, std::int64_t row, float* out) {
    const CodedTileView tile = coded_tile(matrix, row / tile_rows);
    const std::int64_t output = row % tile_rows;
    for (std::int64_t i = 0; i < matrix.inputs; ++i) out[i] = coded_weight(tile, i, output);
    for (std::uint32_t i = 0; i < tile.head.exceptions; ++i) {
        const WeightException& exception = tile.exceptions[i];
        if (exception.output == output) out[exception.input] = core::to_float(exception.weight);
    }
}

bool has_sound_exceptions(const PackedMatrix& matrix) {
    std::int64_t expected = 0;
    for (std::int64_t t = 0; t < matrix.tiles(); ++t) {
        const CodedTile& head = coded_head(matrix, t);
        if (head.first_exception != expected || head.exceptions > matrix.exceptions - expected) return false;
        expected += head.exceptions;
        const std::int64_t outputs = std::min(tile_rows, matrix.outputs - t * tile_rows);
        for (const WeightException& exception : std::span(coded_tile(matrix, t).exceptions, head.exceptions)) {
            if (exception.input >= matrix.inputs || exception.output >= outputs) return false;
        }
    }
    return expected == matrix.exceptions;
}

}  // namespace mha2mla::kernels
