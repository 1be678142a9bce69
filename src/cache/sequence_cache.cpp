#include "cache/sequence_cache.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

std::size_t pages_for(std::int64_t tokens) {
    return static_cast<std::size_t>((tokens + page_tokens - 1) / page_tokens);
}

}  // namespace

SequenceCache::SequenceCache(PagePool& pool) : pool_(&pool), sinks_(pool.new_sinks()) {
    pages_.reserve(static_cast<std::size_t>(pool.pages()));  // appending a token never allocates
}

SequenceCache::~SequenceCache() { release_from(0); }

SequenceCache::SequenceCache(SequenceCache&& other) noexcept
    : pool_(other.pool_),
      pages_(std::exchange(other.pages_, {})),
      tokens_(std::exchange(other.tokens_, 0)),
      sinks_(std::move(other.sinks_)) {}

SequenceCache& SequenceCache::operator=(SequenceCache&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(pages_, other.pages_);
    std::swap(tokens_, other.tokens_);
    std::swap(sinks_, other.sinks_);
    return *this;
}

SequenceCache SequenceCache::fork() const {
    SequenceCache copy(*pool_);
    copy.tokens_ = tokens_;
    copy.sinks_ = sinks_;
    for (std::size_t page = 0; page < pages_for(tokens_); ++page) {
        pool_->retain(pages_[page]);
        copy.pages_.push_back(pages_[page]);
    }
    return copy;
}

bool SequenceCache::must_copy_open_page() const {
    return tokens_ % page_tokens != 0 && pool_->is_shared(pages_[pages_for(tokens_) - 1]);
}

std::int64_t SequenceCache::room() const {
    const std::int64_t copy = must_copy_open_page() ? 1 : 0;
    const auto held = static_cast<std::int64_t>(pages_.size()) * page_tokens - tokens_;
    if (copy > pool_->free_pages()) return 0;
    return held + (pool_->free_pages() - copy) * page_tokens;
}

std::int64_t SequenceCache::new_pages(std::int64_t count) const {
    const auto needed = static_cast<std::int64_t>(pages_for(tokens_ + count));
    const auto held = static_cast<std::int64_t>(pages_.size());
    return std::max(needed - held, std::int64_t{0}) + (must_copy_open_page() ? 1 : 0);
}

void SequenceCache::reserve(std::int64_t count) {
    if (count > room()) {
        throw core::Error(
            {.what = "the context is full",
             .expected = "at most " + std::to_string(pool_->capacity_tokens()) + " tokens in all sequences",
             .got = std::to_string(tokens_) + " tokens in this sequence and " + std::to_string(count) + " more",
             .remedy = "pass a larger --context or a shorter text"});
    }
    release_from(pages_for(tokens_));  // what was reserved and not used
    make_open_page_writable();
    const std::int64_t end = tokens_ + count;
    while (pages_.size() < pages_for(end)) {
        const bool full = static_cast<std::int64_t>(pages_.size() + 1) * page_tokens <= end;
        pages_.push_back(pool_->allocate(full ? Writing::layer_by_layer : Writing::token_by_token));
    }
}

void SequenceCache::make_open_page_writable() {
    if (must_copy_open_page()) return copy_open_page();
    const std::int64_t rows = tokens_ % page_tokens;
    if (rows != 0 && pool_->is_sealed(pages_.back())) pool_->reopen(pages_.back(), rows);
}

void SequenceCache::copy_open_page() {
    PageId& open = pages_[pages_for(tokens_) - 1];
    const PageId copy = pool_->allocate();
    pool_->copy_rows(open, copy, tokens_ % page_tokens);
    pool_->set_used_rows(copy, tokens_ % page_tokens);
    pool_->release(open);
    open = copy;
}

SequenceCache::PageRange SequenceCache::full_pages(std::int64_t count) const {
    return {.begin = tokens_ / page_tokens, .end = (tokens_ + count) / page_tokens};
}

void SequenceCache::commit(std::int64_t count) {
    core::invariant(pages_for(tokens_ + count) <= pages_.size(), "only reserved rows are committed");
    const PageRange full = full_pages(count);
    for (std::int64_t page = full.begin; page < full.end; ++page) pool_->close(pages_[static_cast<std::size_t>(page)]);
    const std::int64_t end = tokens_ + count;
    for (std::int64_t page = tokens_ / page_tokens; page * page_tokens < end; ++page) {
        pool_->set_used_rows(pages_[static_cast<std::size_t>(page)], std::min(page_tokens, end - page * page_tokens));
    }
    tokens_ = end;
    sinks_.set_tokens(tokens_);
}

void SequenceCache::truncate(std::int64_t tokens) {
    core::invariant(tokens >= 0 && tokens <= tokens_, "a sequence is truncated to fewer tokens");
    tokens_ = tokens;
    sinks_.set_tokens(tokens_);
    release_from(pages_for(tokens));
    if (tokens % page_tokens != 0 && !must_copy_open_page()) pool_->set_used_rows(pages_.back(), tokens % page_tokens);
}

void SequenceCache::release_from(std::size_t first_page) {
    while (pages_.size() > first_page) {
        pool_->release(pages_.back());
        pages_.pop_back();
    }
}

std::byte* SequenceCache::row(int layer, int plane, std::int64_t token) const {
    return pool_->row(layer, plane, pages_[static_cast<std::size_t>(token / page_tokens)], token % page_tokens);
}

void SequenceCache::list_blocks(int layer, int keys, int values, std::int64_t tokens,
                                kernels::KeyValueBlock* blocks) const {
    for (std::int64_t first = 0; first < tokens; first += page_tokens) {
        const PageId page = pages_[static_cast<std::size_t>(first / page_tokens)];
        const bool sealed = pool_->is_sealed(page);
        const auto start = [&](int plane) -> const std::byte* {
            return sealed ? pool_->sealed_rows(layer, plane, page) : pool_->row(layer, plane, page, 0);
        };
        blocks[first / page_tokens] = {.keys = start(keys),
                                       .values = start(values),
                                       .tokens = std::min(page_tokens, tokens - first),
                                       .sealed = sealed};
    }
}

std::size_t SequenceCache::allocated_bytes() const {
    std::size_t bytes = sinks_.allocated_bytes();
    for (const PageId page : pages_) bytes += pool_->allocated_bytes(page);
    return bytes;
}

std::size_t SequenceCache::used_bytes() const {
    std::size_t bytes = sinks_.used_bytes();
    for (std::int64_t first = 0; first < tokens_; first += page_tokens) {
        bytes += pool_->used_bytes(pages_[static_cast<std::size_t>(first / page_tokens)],
                                   std::min(page_tokens, tokens_ - first));
    }
    return bytes;
}

}  // namespace mha2mla::cache
