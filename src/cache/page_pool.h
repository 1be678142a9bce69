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

/// How the rows of a page come, where full pages are sealed.
enum class Writing {
    token_by_token,  ///< the page stays open: exact rows of all layers wait until it is full
    layer_by_layer,  ///< the page is full at once: each layer is sealed before the next is written, in the same memory
};

/// All pages of a model's cache: a fixed arena, pages with reference counts. Also knows the format of what sequences
/// keep beside their pages. Not thread-safe; rows of a page may be read and written, and different pages and layers
/// sealed, from several threads.
///
/// Where the formats seal, the arena holds sealed pages, and pages that are being written have their exact rows in
/// memory beside it. Otherwise a page is written where it stays.
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
    PageId allocate(Writing writing = Writing::token_by_token);
    void retain(PageId page);
    void release(PageId page);
    /// The sinks of a new sequence. The pool must outlive them and stay where it is.
    Sinks new_sinks() { return sinks_.tokens == 0 ? Sinks() : Sinks(sinks_, sink_use_); }
    const SinkFormat& sink_format() const { return sinks_; }
    std::int64_t sink_tokens() const { return sinks_.tokens; }

    bool is_shared(PageId page) const { return use_of(page).references > 1; }
    /// Its rows are codes now and cannot be written.
    bool is_sealed(PageId page) const { return seals_ && use_of(page).slot == no_slot; }

    /// Quantizes a full page of one layer, whose exact rows stay readable until `close`. Nothing where nothing is
    /// sealed.
    void seal(int layer, PageId page) const;
    /// All layers are sealed: gives the memory of the exact rows back.
    void close(PageId page);
    /// Makes a sealed page that nobody shares writable again, with its first `rows` rows.
    void reopen(PageId page, std::int64_t rows);

    /// Copies the first `rows` rows of every plane of every layer, de-quantized where `from` is sealed.
    void copy_rows(PageId from, PageId to, std::int64_t rows);
    /// How many rows of the page hold tokens; for the statistics only.
    void set_used_rows(PageId page, std::int64_t rows);

    /// A row of a page that is not sealed.
    std::byte* row(int layer, int plane, PageId page, std::int64_t row) const;
    /// Where PageFormat::sealed_format counts from: the start of a plane in a sealed page.
    const std::byte* sealed_rows(int layer, int plane, PageId page) const;

    /// Of full pages, over all layers; the share of a page's scales rounded up.
    std::size_t bytes_per_token() const;
    /// Of a full page of all layers.
    std::size_t page_bytes() const { return page_bytes_; }
    std::size_t capacity_bytes() const { return page_bytes() * page_use_.size(); }
    /// A page's place in the arena, and its exact rows where they lie beside it.
    std::size_t allocated_bytes(PageId page) const;
    std::size_t used_bytes(PageId page, std::int64_t rows) const;
    /// Pages and sinks of all sequences.
    std::size_t allocated_bytes() const;
    std::size_t used_bytes() const;

private:
    static constexpr std::int32_t no_slot = -1;

    struct Layer {
        PageFormat format;
        std::size_t offset_bytes;       // in a full page
        std::size_t open_offset_bytes;  // in the exact rows of an open page
    };
    struct PageUse {
        int references = 0;
        std::int64_t rows = 0;
        Writing writing = Writing::token_by_token;
        std::int32_t slot = no_slot;  // of the exact rows, among those of this kind of writing
    };
    /// Memory for exact rows, as many slots as there are pages; what is never used is never touched.
    struct Slots {
        std::size_t slot_bytes = 0;
        Arena arena;
        std::vector<std::int32_t> free;  // a stack
    };

    PageUse& use_of(PageId page) { return page_use_[static_cast<std::size_t>(page)]; }
    const PageUse& use_of(PageId page) const { return page_use_[static_cast<std::size_t>(page)]; }
    Slots& slots_of(Writing writing) { return writing == Writing::token_by_token ? open_ : staged_; }
    const Slots& slots_of(Writing writing) const { return writing == Writing::token_by_token ? open_ : staged_; }
    void add_slots(Slots& slots, std::size_t slot_bytes) const;
    void take_slot(PageId page, Writing writing);
    void give_slot_back(PageId page);
    /// Exact rows of one layer.
    std::byte* exact_page(int layer, PageId page) const;
    std::byte* full_page(int layer, PageId page) const;

    std::vector<Layer> layers_;
    std::vector<PageUse> page_use_;
    std::vector<PageId> free_;  // a stack: the page released last is the next one given
    std::size_t page_bytes_ = 0;
    bool seals_ = false;
    SinkFormat sinks_;
    SinkUse sink_use_;
    Arena arena_;
    Slots open_;    // all layers
    Slots staged_;  // the largest layer
};

}  // namespace mha2mla::cache
