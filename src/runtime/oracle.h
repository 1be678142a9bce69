#pragma once

// For tests: models as small as the formats allow, and their logits by plain loops in double precision.

#include <filesystem>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "runtime/decoder.h"

namespace mha2mla::runtime::test {

using Rows = std::vector<std::vector<double>>;  // [tokens][width]
using Logits = Rows;                            // [tokens][vocab]

/// Logits of every token, straight from the equations of docs/checkpoint.md (keys and values as numbers, no cache).
Logits oracle_logits(const checkpoint::Checkpoint& model, std::span<const int> tokens);
/// The residual stream, before each layer and with its attention added, and what the final norm takes.
std::vector<Rows> oracle_states(const checkpoint::Checkpoint& model, std::span<const int> tokens);

/// 2 layers, 4 heads, 2 KV heads of width 16; sizes that are no multiples of a tile.
checkpoint::ModelConfig tiny_config();
/// The choices of an MLA model of that size. Layers differ: {R, pairs of dr} each.
struct MlaChoice {
    std::string name;
    bool shared_rope_key = false;
    checkpoint::NopePairs nope_pairs = checkpoint::NopePairs::unrotated;
    std::vector<int> ranks = {20, 13};
    std::vector<int> pairs = {3, 2};
    bool biases = false;
    bool repeats = false;  // a pair occurs twice in a rotary key head
    bool factors = false;  // of both query parts
    bool own_rope_query = false;
    bool positional_part = false;
    int sink_tokens = 0;
    int kv_heads = 2;
    int latent_groups = 1;

    friend std::ostream& operator<<(std::ostream& stream, const MlaChoice& choice) { return stream << choice.name; }
};
checkpoint::ModelConfig tiny_mla_config(const MlaChoice& choice);

/// Writes a model with seeded random weights to a temporary directory and opens it.
checkpoint::Checkpoint random_model(const checkpoint::ModelConfig& config, const std::string& name);
checkpoint::Checkpoint open_fixture(const std::string& name);

std::vector<int> random_tokens(int count, int vocab, std::uint64_t seed = 1);

/// A decoder and what it stands on.
struct Engine {
    Engine(const checkpoint::Checkpoint& model, const DecoderOptions& options, int threads = 2)
        : pool(threads), decoder(model, options, pool, progress) {}

    /// Logits of every token of a text fed in pieces of `piece` tokens.
    Logits logits(std::span<const int> tokens, std::size_t piece);

    core::Progress progress;
    core::ThreadPool pool;
    Decoder decoder;
};

/// ||a - b|| / ||b|| over all rows.
double relative_error(const Rows& a, const Rows& b);

DecoderOptions f32_options(AttentionForm form = AttentionForm::automatic);

}  // namespace mha2mla::runtime::test
