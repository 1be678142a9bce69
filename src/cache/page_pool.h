#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/arena.h"
#include "cache/page_format.h"
#include "cache/sinks.h"

namespace mha2mla::cache {

/// A page number. All layers of a sequence hold the same tokens, so one number stands for a page in every layer; these
/// lie side by side, so that memory is touched as tokens come.
using PageId = std::int32_t;

/// All pages of a model's cache: a fixed arena, pages with reference counts. Also knows the format of what sequences
/// keep beside their pages. Not thread-safe; rows of a page may be read and written from several threads.
class PagePool {
public:
    /// `layers`: the format of each layer. `context_tokens` is rounded up to whole pages.
    PagePool(std::vector<PageFormat> layers, std::int64_t context_tokens, SinkFormat sinks = {});

    const PageFormat& format(int layer) const { return layers_[static_cast<std::size_t>(layer)].format; }
    int layers() const { return static_cast<int>(layers_.size()); }
    int pages() const { return static_cast<int>(page_use_.size()); }
    int free_pages() const { return static_cast<int>(free_.size()); }
    std::int64_t capacity_tokens() const { return pages() * page_tokens; }

    /// A page with one reference. Throws Error when none is free.
    PageId allocate();
    void retain(PageId page);
    void release(PageId page);
    /// The sinks of a new sequence. The pool must outlive them and stay where it is.
    Sinks new_sinks() { return sinks_.tokens == 0 ? Sinks() : Sinks(sinks_, sink_use_); }
    const SinkFormat& sink_format() const { return sinks_; }
    std::int64_t sink_tokens() const { return sinks_.tokens; }

    bool is_shared(PageId page) const { return use_of(page).references > 1; }

    /// Copies the first `rows` rows of every plane of every layer.
    void copy_rows(PageId from, PageId to, std::int64_t rows);
    /// How many rows of the page hold tokens; for the statistics only.
    void set_used_rows(PageId page, std::int64_t rows);

    std::byte* row(int layer, int plane, PageId page, std::int64_t row) const;

    std::size_t bytes_per_token() const { return bytes_per_token_; }  ///< over all layers
    /// Of all layers.
    std::size_t page_bytes() const { return bytes_per_token_ * static_cast<std::size_t>(page_tokens); }
    std::size_t capacity_bytes() const { return page_bytes() * page_use_.size(); }
    /// Pages and sinks of all sequences.
    std::size_t allocated_bytes() const {
        return page_bytes() * (page_use_.size() - free_.size()) + sinks_.bytes() * sink_use_.sequences;
    }
    std::size_t used_bytes() const;

private:
    struct Layer {
        PageFormat format;
        std::size_t offset_bytes;  // in a page
    };
    struct PageUse {
        int references = 0;
        std::int64_t rows = 0;
    };

    PageUse& use_of(PageId page) { return page_use_[static_cast<std::size_t>(page)]; }
    const PageUse& use_of(PageId page) const { return page_use_[static_cast<std::size_t>(page)]; }

    std::vector<Layer> layers_;
    std::vector<PageUse> page_use_;
    std::vector<PageId> free_;  // a stack: the page released last is the next one given
    std::size_t bytes_per_token_ = 0;
    SinkFormat sinks_;
    SinkUse sink_use_;
    Arena arena_;
};

}  // namespace mha2mla::cache
