#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/page_pool.h"
#include "kernels/kernels.h"

namespace mha2mla::cache {

/// The cached tokens of one sequence: a list of pages. The last page may be open (partly filled). Pages are shared
/// between forks; an open page that is shared is copied before the first write. Sinks are never shared. Must not
/// outlive its pool.
class SequenceCache {
public:
    explicit SequenceCache(PagePool& pool);
    ~SequenceCache();
    SequenceCache(SequenceCache&& other) noexcept;
    SequenceCache& operator=(SequenceCache&& other) noexcept;

    /// A second sequence with the same tokens, on the same pages.
    SequenceCache fork() const;

    std::int64_t tokens() const { return tokens_; }
    /// How many more tokens the pool has space for.
    std::int64_t room() const;

    /// Free pages that reserve(count) takes.
    std::int64_t new_pages(std::int64_t count) const;
    /// Makes the rows [tokens(), tokens() + count) writable. Throws Error, and changes nothing, when the pool is full.
    void reserve(std::int64_t count);
    /// Counts `count` reserved rows, written in every layer, as tokens.
    void commit(std::int64_t count);
    /// Forgets all but the first `tokens` tokens.
    void truncate(std::int64_t tokens);

    /// The row of a committed or reserved token. Rows of one page follow each other.
    std::byte* row(int layer, int plane, std::int64_t token) const;
    /// The same of the first tokens' full keys and values, where the model keeps them.
    std::byte* sink_row(int layer, int plane, std::int64_t token) const { return sinks_.row(layer, plane, token); }
    /// The pages that hold the first `tokens` tokens as the attention kernels want them: blocks
    /// [ceil(tokens / page_tokens)].
    void list_blocks(int layer, int keys, int values, std::int64_t tokens, kernels::KeyValueBlock* blocks) const;

    std::size_t allocated_bytes() const { return pages_.size() * pool_->page_bytes() + sinks_.allocated_bytes(); }
    std::size_t used_bytes() const {
        return static_cast<std::size_t>(tokens_) * pool_->bytes_per_token() + sinks_.used_bytes();
    }

    const PagePool& pool() const { return *pool_; }

private:
    bool must_copy_open_page() const;
    void copy_open_page();
    void release_from(std::size_t first_page);

    PagePool* pool_;
    std::vector<PageId> pages_;
    std::int64_t tokens_ = 0;
    Sinks sinks_;
};

}  // namespace mha2mla::cache
