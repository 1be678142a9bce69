#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cache/cache_format.h"
#include "checkpoint/checkpoint.h"
#include "core/dtype.h"
#include "core/function_ref.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "kernels/kernels.h"

namespace mha2mla::runtime {

/// How the attention of an MLA model is computed. The two forms are equal up to rounding (docs/checkpoint.md).
enum class AttentionForm {
    automatic,  ///< each chunk of tokens in the form that costs less (runtime/form_costs.h)
    expanded,   ///< keys and values are rebuilt from the latents
    absorbed,   ///< queries are folded into latent space
};

struct DecoderOptions {
    kernels::WeightFormat weights = kernels::WeightFormat::bf16;
    std::optional<kernels::WeightFormat> output_weights = {};  ///< of embedding and output matrix; none: the default
    std::filesystem::path packed_weights = {};                 ///< a file of theirs to be mapped; empty: none
    /// Numbers or codes; what is not sealed yet is bf16 where there are codes. Groups are multiples of eight elements.
    cache::CacheFormat kv_cache = cache::plain_format(core::DType::bf16);
    AttentionForm attention = AttentionForm::automatic;
    /// Long inputs run page by page, so that with codes every token attends to what a decode step would find: older
    /// pages sealed, its own exact. Otherwise the tokens of a chunk see each other exactly. Numbers need neither.
    bool as_decoded = false;
    int context_tokens = 0;  ///< of the longest sequence; 0 = the model's max_position_embeddings
    int sequences = 1;       ///< the cache holds context_tokens so many times, shared as they come
};

/// Bytes of the key/value cache.
struct KvBytes {
    std::size_t capacity = 0;   ///< of the arena of pages
    std::size_t allocated = 0;  ///< pages that sequences hold, whole, exact rows of those not sealed yet, and sinks
    std::size_t used = 0;       ///< rows written
};

/// The residual stream of a pass at a place among the layers: before layer `layer`, or once its attention is added.
/// Layer num_hidden_layers is what the final norm takes.
struct LayerStates {
    int layer = 0;
    bool attended = false;
    std::span<const float> x_TE;  ///< [tokens of the pass, hidden_size]
};

class Decoder;

/// One sequence and its part of the cache. Must not outlive its Decoder.
class Sequence {
public:
    ~Sequence();
    Sequence(Sequence&&) noexcept;
    Sequence& operator=(Sequence&&) noexcept;

    int tokens() const;
    /// Forgets all but the first `tokens` tokens.
    void truncate(int tokens);
    KvBytes kv_bytes() const;

private:
    friend class Decoder;
    struct Impl;
    explicit Sequence(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Tokens that a sequence is to take in. Both must stay for the call.
struct Feed {
    Sequence* sequence = nullptr;
    std::span<const int> tokens;
    std::int64_t logits = 1;  ///< of so many of its last tokens; at most all of them
};

/// The native decoder: runs a source model (GQA, plain cache) or an MLA model (latent cache) on the CPU.
/// One call at a time; the thread pool is shared.
class Decoder {
public:
    /// Packs the weights into the kernels' layout. Throws Error for a checkpoint that cannot be run.
    Decoder(const checkpoint::Checkpoint& model, const DecoderOptions& options, core::ThreadPool& pool,
            core::Progress& progress);
    ~Decoder();

    const checkpoint::ModelConfig& config() const;
    std::size_t weight_bytes() const;
    /// Weight bytes that one decode step reads: what bounds its speed, with the cache.
    std::size_t step_weight_bytes() const;

    Sequence new_sequence();
    /// A second sequence that shares the first one's pages until either writes (copy-on-write). Sinks are copied.
    Sequence fork(const Sequence& sequence);

    /// Appends tokens to the sequence and returns the logits of the last one, [vocab_size]; valid until the next call.
    /// Long inputs run in chunks of up to 512 tokens. Throws Error when the context is full.
    std::span<const float> forward(Sequence& sequence, std::span<const int> tokens);

    /// Appends tokens to several sequences at once, chunks of prompts and single tokens alike; the weights are read
    /// once for all. Returns the logits that the feeds want, in their order, [wanted tokens, vocab_size]; valid until
    /// the next call. Each sequence comes once, with no more than its pass_tokens, and at most max_batch_tokens
    /// tokens come in all. Throws Error, and changes nothing, when the context is full.
    std::span<const float> forward(std::span<const Feed> feeds);
    static constexpr int max_batch_tokens = 512;

    /// The same with one token for each sequence.
    std::span<const float> decode_step(std::span<Sequence* const> sequences, std::span<const int> tokens);

    /// How many tokens one pass may take in of a sequence that has `tokens`: with `as_decoded` up to its page's end.
    std::int64_t pass_tokens(std::int64_t tokens) const;

    /// As forward of one sequence, but hands over the logits of every token, those of some consecutive ones at a time:
    /// visit(index of the first, [tokens, vocab_size]).
    void forward_all(Sequence& sequence, std::span<const int> tokens,
                     core::FunctionRef<void(std::int64_t first, std::span<const float> logits)> visit);

    /// Appends tokens to the sequence, no more than its pass_tokens, and shows the residual stream on its way through
    /// the layers instead of making logits. States are valid during the visit, which must not throw. Throws Error when
    /// the context is full.
    void forward_states(Sequence& sequence, std::span<const int> tokens,
                        core::FunctionRef<void(const LayerStates&)> visit);

    /// Throws Error for a token outside the vocabulary.
    void check(std::span<const int> tokens) const;
    std::int64_t context_tokens() const;   ///< of the longest sequence
    std::int64_t capacity_tokens() const;  ///< of all sequences together
    std::int64_t free_pages() const;       ///< of cache::page_tokens tokens each
    /// How many more tokens the cache can take for this sequence.
    std::int64_t room(const Sequence& sequence) const;
    KvBytes kv_bytes() const;
    /// Cache bytes of one token over all layers, by formula. On top come, once a sequence, sinks and the page that is
    /// not sealed yet.
    std::size_t kv_bytes_per_token() const;
    /// Bytes of the cache that one decode step reads after `tokens` tokens. Fractions are for means.
    double step_cache_bytes(double tokens) const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mha2mla::runtime
