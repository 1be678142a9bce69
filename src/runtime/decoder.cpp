#include "runtime/decoder.h"

#include <algorithm>
#include <array>
#include <numeric>
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

static_assert(Decoder::max_batch_tokens == max_chunk_tokens);

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

std::int64_t whole_pages(std::int64_t tokens) {
    return (tokens + cache::page_tokens - 1) / cache::page_tokens * cache::page_tokens;
}

void check_type(core::DType type, const char* option) {
    if (type != core::DType::f16) return;
    throw core::Error({.what = "the runtime has no f16 kernels", .expected = "bf16 or f32", .where = option});
}

void check_group(const cache::GroupFormat& format) {
    if (format.group_elements % kernels::group_unit == 0) return;
    throw core::Error({.what = "the runtime reads codes by whole vectors",
                       .expected = "groups of a multiple of " + std::to_string(kernels::group_unit) + " elements",
                       .got = std::to_string(format.group_elements),
                       .where = "--kv-cache"});
}

WeightOptions weight_options(const DecoderOptions& options) {
    return {.formats = {.layers = options.weights,
                        .output = options.output_weights.value_or(default_output_format(options.weights))},
            .packed = options.packed_weights};
}

const DecoderOptions& checked(const DecoderOptions& options) {
    for (const cache::RowFormat* rows : {&options.kv_cache.content, &options.kv_cache.rotary, &options.kv_cache.keys}) {
        check_type(rows->dtype, "--kv-cache");
        if (rows->codes) check_group(*rows->codes);
    }
    return options;
}

}  // namespace

struct Decoder::Impl {
    Impl(const checkpoint::Checkpoint& model, const DecoderOptions& options, core::ThreadPool& pool,
         core::Progress& progress)
        : config(model.config()),
          context(context_of(config, options)),
          as_decoded(options.as_decoded && options.kv_cache.has_codes()),
          pages(page_formats(config, checked(options).kv_cache), whole_pages(context) * options.sequences,
                sink_format(config, options.kv_cache.content.dtype)),
          transformer(config, load_weights(model, weight_options(options), pool, progress), options,
                      whole_pages(context), pool) {
        feeds.reserve(max_chunk_tokens);
        rows.reserve(max_chunk_tokens);
    }

    /// Pages are whole and shared, so the pool may hold more than the context; no sequence may.
    std::int64_t room(const Sequence& sequence) const {
        return std::min(sequence.impl_->cache.room(), context - sequence.tokens());
    }
    /// Tokens that the next pass may take in.
    std::int64_t pass_tokens(std::int64_t tokens) const {
        return as_decoded ? cache::page_tokens - tokens % cache::page_tokens : max_chunk_tokens;
    }
    /// Refuses what cannot be run, before anything is changed.
    void check(std::span<const int> tokens) const;
    void check(const Sequence& sequence, std::span<const int> tokens) const;
    void check(std::span<const Feed> batch) const;
    std::span<const float> forward(std::span<const Feed> batch);
    std::span<const float> logits();
    /// Calls visit_chunk(index of the chunk's first token, its tokens) after each chunk.
    template <typename VisitChunk>
    void run(Sequence& sequence, std::span<const int> tokens, const VisitChunk& visit_chunk);

    ModelConfig config;
    std::int64_t context;
    bool as_decoded;
    cache::PagePool pages;
    Transformer transformer;
    std::vector<Feed> feeds;         // of decode_step
    std::vector<std::int64_t> rows;  // of the batch, whose logits are wanted
};

void Decoder::Impl::check(std::span<const int> tokens) const {
    for (const int token : tokens) {
        if (token >= 0 && token < config.vocab_size) continue;
        throw core::Error({.what = "a token is outside the vocabulary",
                           .expected = "0 to " + std::to_string(config.vocab_size - 1),
                           .got = std::to_string(token),
                           .remedy = "use the tokenizer that belongs to the model"});
    }
}

void Decoder::Impl::check(const Sequence& sequence, std::span<const int> tokens) const {
    core::invariant(!tokens.empty(), "a forward pass has at least one token");
    check(tokens);
    const auto count = static_cast<std::int64_t>(tokens.size());
    if (count <= room(sequence)) return;
    throw core::Error({.what = "the context is too small",
                       .expected = "at most " + std::to_string(context) + " tokens",
                       .got = std::to_string(sequence.tokens()) + " tokens and " + std::to_string(count) + " more",
                       .where = "--context",
                       .remedy = "pass a larger --context or a shorter text"});
}

void Decoder::Impl::check(std::span<const Feed> batch) const {
    std::int64_t tokens = 0, new_pages = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        check(*batch[i].sequence, batch[i].tokens);
        for (const Feed& other : batch.first(i)) {
            core::invariant(other.sequence != batch[i].sequence, "a sequence comes once in a batch");
        }
        const auto count = static_cast<std::int64_t>(batch[i].tokens.size());
        core::invariant(batch[i].logits >= 0 && batch[i].logits <= count, "a feed wants logits of its own tokens");
        core::invariant(count <= pass_tokens(batch[i].sequence->tokens()), "a pass takes in no more than pass_tokens");
        tokens += count;
        new_pages += batch[i].sequence->impl_->cache.new_pages(count);
    }
    core::invariant(tokens > 0 && tokens <= max_chunk_tokens, "a batch holds 1 to max_batch_tokens tokens");
    if (new_pages <= pages.free_pages()) return;
    throw core::Error({.what = "the cache is full",
                       .expected = "room for " + std::to_string(new_pages) + " pages more",
                       .got = std::to_string(pages.free_pages()) + " free pages",
                       .where = "--context",
                       .remedy = "pass a larger --context or fewer sequences"});
}

std::span<const float> Decoder::Impl::logits() {
    const float* const first = transformer.logits(rows);
    return {first, rows.size() * static_cast<std::size_t>(config.vocab_size)};
}

std::span<const float> Decoder::Impl::forward(std::span<const Feed> batch) {
    check(batch);
    rows.clear();
    std::int64_t end_row = 0;
    for (const Feed& feed : batch) {
        transformer.add(feed.sequence->impl_->cache, feed.tokens);
        end_row += static_cast<std::int64_t>(feed.tokens.size());
        for (std::int64_t row = end_row - feed.logits; row < end_row; ++row) rows.push_back(row);
    }
    transformer.forward();
    return rows.empty() ? std::span<const float>() : logits();
}

template <typename VisitChunk>
void Decoder::Impl::run(Sequence& sequence, std::span<const int> tokens, const VisitChunk& visit_chunk) {
    check(sequence, tokens);
    std::size_t count = 0;
    for (std::size_t first = 0; first < tokens.size(); first += count) {
        count = std::min(static_cast<std::size_t>(pass_tokens(sequence.tokens())), tokens.size() - first);
        transformer.add(sequence.impl_->cache, tokens.subspan(first, count));
        transformer.forward();
        visit_chunk(static_cast<std::int64_t>(first), static_cast<std::int64_t>(count));
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
    impl_->run(sequence, tokens, [&](std::int64_t, std::int64_t count) { impl_->rows.assign(1, count - 1); });
    return impl_->logits();
}

std::span<const float> Decoder::forward(std::span<const Feed> feeds) { return impl_->forward(feeds); }

std::span<const float> Decoder::decode_step(std::span<Sequence* const> sequences, std::span<const int> tokens) {
    core::invariant(sequences.size() == tokens.size(), "each sequence takes one token");
    impl_->feeds.clear();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        impl_->feeds.push_back({.sequence = sequences[i], .tokens = tokens.subspan(i, 1)});
    }
    return impl_->forward(impl_->feeds);
}

void Decoder::forward_all(Sequence& sequence, std::span<const int> tokens,
                          core::FunctionRef<void(std::int64_t, std::span<const float>)> visit) {
    auto& rows = impl_->rows;
    impl_->run(sequence, tokens, [&](std::int64_t first, std::int64_t count) {
        for (std::int64_t row = 0; row < count; row += max_logit_rows) {
            rows.resize(static_cast<std::size_t>(std::min(max_logit_rows, count - row)));
            std::iota(rows.begin(), rows.end(), row);
            visit(first + row, impl_->logits());
        }
    });
}

void Decoder::forward_states(Sequence& sequence, std::span<const int> tokens,
                             core::FunctionRef<void(const LayerStates&)> visit) {
    impl_->check(std::array{Feed{.sequence = &sequence, .tokens = tokens, .logits = 0}});
    impl_->transformer.add(sequence.impl_->cache, tokens);
    impl_->transformer.forward(visit);
}

void Decoder::check(std::span<const int> tokens) const { impl_->check(tokens); }
std::int64_t Decoder::context_tokens() const { return impl_->context; }
std::int64_t Decoder::capacity_tokens() const { return impl_->pages.capacity_tokens(); }
std::int64_t Decoder::free_pages() const { return impl_->pages.free_pages(); }
std::int64_t Decoder::pass_tokens(std::int64_t tokens) const { return impl_->pass_tokens(tokens); }
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
    return (tokens - sinks) * static_cast<double>(kv_bytes_per_token()) +
           sinks * static_cast<double>(format.bytes_per_token());
}

}  // namespace mha2mla::runtime
