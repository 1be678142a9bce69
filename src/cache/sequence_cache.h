#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/page_pool.h"
#include "kernels/kernels.h"

namespace mha2mla::cache {

/// The cached tokens of one sequence: a list of pages. The last page may be open (partly filled). Pages are shared
/// between forks; an open page that is shared is copied before the first write. Where the format seals full pages, one
/// that was truncated is de-quantized before the next write. Sinks are never shared. Must not outlive its pool.
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
    /// Pages that `count` reserved tokens fill.
    struct PageRange {
        std::int64_t begin = 0;
        std::int64_t end = 0;
    };
    PageRange full_pages(std::int64_t count) const;
    /// Seals one of these pages in one layer: its rows are all written, and no query needs them exactly any more.
    void seal(int layer, std::int64_t page) const { pool_->seal(layer, pages_[static_cast<std::size_t>(page)]); }
    /// Counts `count` reserved rows, written in every layer, as tokens. Pages that become full were sealed in every
    /// layer.
    void commit(std::int64_t count);
    /// Forgets all but the first `tokens` tokens.
    void truncate(std::int64_t tokens);

    /// The row of a committed or reserved token in a page that is not sealed. Rows of one page follow each other.
    std::byte* row(int layer, int plane, std::int64_t token) const;
    /// The same of the first tokens' full keys and values, where the model keeps them.
    std::byte* sink_row(int layer, int plane, std::int64_t token) const { return sinks_.row(layer, plane, token); }
    /// The pages that hold the first `tokens` tokens as the attention kernels want them, sealed ones as
    /// PageFormat::sealed_format says: blocks [ceil(tokens / page_tokens)].
    void list_blocks(int layer, int keys, int values, std::int64_t tokens, kernels::KeyValueBlock* blocks) const;

    std::size_t allocated_bytes() const;
    std::size_t used_bytes() const;

    const PagePool& pool() const { return *pool_; }

private:
    bool must_copy_open_page() const;
    void copy_open_page();
    void make_open_page_writable();
    void release_from(std::size_t first_page);

    PagePool* pool_;
    std::vector<PageId> pages_;
    std::int64_t tokens_ = 0;
    Sinks sinks_;
};

}  // namespace mha2mla::cache
