#include "runtime/decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"
#include "runtime/transformer.h"

namespace mha2mla::runtime {

struct Sequence::Impl {
    cache::SequenceCache cache;
};

Sequence::Sequence(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Sequence::~Sequence() = default;
Sequence::Sequence(Sequence&&) noexcept = default;
Sequence& Sequence::operator=(Sequence&&) noexcept = default;

int Sequence::tokens() const { return static_cast<int>(impl_->cache.tokens()); }
void Sequence::truncate(int tokens) { impl_->cache.truncate(tokens); }

KvBytes Sequence::kv_bytes() const {
    const cache::SequenceCache& cache = impl_->cache;
    return {
        .capacity = cache.pool().capacity_bytes(), .allocated = cache.allocated_bytes(), .used = cache.used_bytes()};
}

namespace {

using checkpoint::ModelConfig;

std::int64_t context_of(const ModelConfig& config, const DecoderOptions& options) {
    if (options.context_tokens < 0) {
        throw core::Error({.what = "the context has a negative size",
                           .expected = "0 (the model's own) or more",
                           .got = std::to_string(options.context_tokens),
                           .where = "--context"});
    }
    return options.context_tokens == 0 ? config.max_position_embeddings : options.context_tokens;
}

void check_type(core::DType type, const char* option) {
    if (type != core::DType::f16) return;
    throw core::Error({.what = "the runtime has no f16 kernels", .expected = "bf16 or f32", .where = option});
}

WeightOptions weight_options(const DecoderOptions& options) {
    return {.formats = {.layers = options.weights,
                        .output = options.output_weights.value_or(default_output_format(options.weights))},
            .packed = options.packed_weights};
}

const DecoderOptions& checked(const DecoderOptions& options) {
    check_type(options.kv_cache, "--kv-cache");
    return options;
}

}  // namespace

struct Decoder::Impl {
    Impl(const checkpoint::Checkpoint& model, const DecoderOptions& options, core::ThreadPool& pool,
         core::Progress& progress)
        : config(model.config()),
          context(context_of(config, options)),
          pages(page_formats(config, checked(options).kv_cache), context, sink_format(config, options.kv_cache)),
          transformer(config, load_weights(model, weight_options(options), pool, progress), options,
                      pages.capacity_tokens(), pool) {}

    /// Pages are whole, so the pool may hold more than the context; no sequence may.
    std::int64_t room(const Sequence& sequence) const {
        return std::min(sequence.impl_->cache.room(), context - sequence.tokens());
    }
    /// Refuses what cannot be run, before anything is changed.
    void check(const Sequence& sequence, std::span<const int> tokens) const;
    /// Calls visit_chunk(index of the chunk's first token, its tokens) after each chunk.
    template <typename VisitChunk>
    void run(Sequence& sequence, std::span<const int> tokens, const VisitChunk& visit_chunk);

    ModelConfig config;
    std::int64_t context;
    cache::PagePool pages;
    Transformer transformer;
};

void Decoder::Impl::check(const Sequence& sequence, std::span<const int> tokens) const {
    core::invariant(!tokens.empty(), "a forward pass has at least one token");
    for (const int token : tokens) {
        if (token >= 0 && token < config.vocab_size) continue;
        throw core::Error({.what = "a token is outside the vocabulary",
                           .expected = "0 to " + std::to_string(config.vocab_size - 1),
                           .got = std::to_string(token),
                           .remedy = "use the tokenizer that belongs to the model"});
    }
    const auto count = static_cast<std::int64_t>(tokens.size());
    if (count <= room(sequence)) return;
    throw core::Error({.what = "the context is too small",
                       .expected = "at most " + std::to_string(context) + " tokens",
                       .got = std::to_string(sequence.tokens()) + " tokens and " + std::to_string(count) + " more",
                       .where = "--context",
                       .remedy = "pass a larger --context or a shorter text"});
}

template <typename VisitChunk>
void Decoder::Impl::run(Sequence& sequence, std::span<const int> tokens, const VisitChunk& visit_chunk) {
    check(sequence, tokens);
    for (std::size_t first = 0; first < tokens.size(); first += max_chunk_tokens) {
        const auto chunk = tokens.subspan(first, std::min<std::size_t>(max_chunk_tokens, tokens.size() - first));
        transformer.forward(sequence.impl_->cache, chunk);
        visit_chunk(static_cast<std::int64_t>(first), static_cast<std::int64_t>(chunk.size()));
    }
}

Decoder::Decoder(const checkpoint::Checkpoint& model, const DecoderOptions& options, core::ThreadPool& pool,
                 core::Progress& progress)
    : impl_(std::make_unique<Impl>(model, options, pool, progress)) {}

Decoder::~Decoder() = default;

const ModelConfig& Decoder::config() const { return impl_->config; }
std::size_t Decoder::weight_bytes() const { return impl_->transformer.weights().store.bytes(); }
std::size_t Decoder::step_weight_bytes() const { return impl_->transformer.weights().step_bytes(); }

Sequence Decoder::new_sequence() {
    return Sequence(std::make_unique<Sequence::Impl>(Sequence::Impl{cache::SequenceCache(impl_->pages)}));
}

Sequence Decoder::fork(const Sequence& sequence) {
    return Sequence(std::make_unique<Sequence::Impl>(Sequence::Impl{sequence.impl_->cache.fork()}));
}

std::span<const float> Decoder::forward(Sequence& sequence, std::span<const int> tokens) {
    std::int64_t last = 0;
    impl_->run(sequence, tokens, [&](std::int64_t, std::int64_t count) { last = count - 1; });
    return {impl_->transformer.logits(last, 1), static_cast<std::size_t>(impl_->config.vocab_size)};
}

void Decoder::forward_all(Sequence& sequence, std::span<const int> tokens,
                          core::FunctionRef<void(std::int64_t, std::span<const float>)> visit) {
    const auto vocab = static_cast<std::size_t>(impl_->config.vocab_size);
    impl_->run(sequence, tokens, [&](std::int64_t first, std::int64_t count) {
        for (std::int64_t row = 0; row < count; row += max_logit_rows) {
            const std::int64_t rows = std::min(max_logit_rows, count - row);
            const float* const logits = impl_->transformer.logits(row, rows);
            for (std::int64_t i = 0; i < rows; ++i) {
                visit(first + row + i, {logits + static_cast<std::size_t>(i) * vocab, vocab});
            }
        }
    });
}

std::int64_t Decoder::room(const Sequence& sequence) const { return impl_->room(sequence); }

KvBytes Decoder::kv_bytes() const {
    return {.capacity = impl_->pages.capacity_bytes(),
            .allocated = impl_->pages.allocated_bytes(),
            .used = impl_->pages.used_bytes()};
}

std::size_t Decoder::kv_bytes_per_token() const { return impl_->pages.bytes_per_token(); }

double Decoder::step_cache_bytes(double tokens) const {
    const cache::SinkFormat& format = impl_->pages.sink_format();
    const double sinks = std::min(tokens, static_cast<double>(format.tokens));
    const std::size_t table_bytes = impl_->transformer.position_table_bytes_per_token();
    return (tokens - sinks) * static_cast<double>(kv_bytes_per_token() + table_bytes) +
           sinks * static_cast<double>(format.bytes_per_token());
}

}  // namespace mha2mla::runtime
