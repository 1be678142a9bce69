#include "cache/page_pool.h"

#include <cstring>
#include <string>
#include <utility>

#include "core/error.h"

namespace mha2mla::cache {

PagePool::PagePool(std::vector<PageFormat> layers, std::int64_t context_tokens, SinkFormat sinks)
    : sinks_(std::move(sinks)) {
    core::invariant(sinks_.tokens >= 0 && sinks_.tokens <= page_tokens, "sinks lie in the first page");
    core::invariant(context_tokens > 0, "a cache holds at least one token");
    const std::int64_t pages = (context_tokens + page_tokens - 1) / page_tokens;
    page_use_.resize(static_cast<std::size_t>(pages));
    for (PageFormat& format : layers) {
        const std::size_t offset_bytes = page_bytes();
        bytes_per_token_ += format.bytes_per_token();
        layers_.push_back({.format = std::move(format), .offset_bytes = offset_bytes});
    }
    arena_ = Arena(capacity_bytes(), PageSize::huge);
    free_.reserve(page_use_.size());
    for (auto page = static_cast<PageId>(pages); page > 0; --page) free_.push_back(page - 1);
}

PageId PagePool::allocate() {
    if (free_.empty()) {
        throw core::Error({.what = "the context is full",
                           .expected = "at most " + std::to_string(capacity_tokens()) + " tokens in all sequences",
                           .remedy = "pass a larger --context"});
    }
    const PageId page = free_.back();
    free_.pop_back();
    use_of(page) = {.references = 1, .rows = 0};
    return page;
}

void PagePool::retain(PageId page) {
    core::invariant(use_of(page).references > 0, "only a held page is shared");
    ++use_of(page).references;
}

void PagePool::release(PageId page) {
    PageUse& use = use_of(page);
    core::invariant(use.references > 0, "a page is released once for each reference");
    if (--use.references > 0) return;
    use.rows = 0;
    free_.push_back(page);
}

void PagePool::copy_rows(PageId from, PageId to, std::int64_t rows) {
    for (int layer = 0; layer < layers(); ++layer) {
        const auto& planes = format(layer).planes;
        for (int plane = 0; plane < static_cast<int>(planes.size()); ++plane) {
            const std::size_t bytes =
                planes[static_cast<std::size_t>(plane)].row_bytes * static_cast<std::size_t>(rows);
            std::memcpy(row(layer, plane, to, 0), row(layer, plane, from, 0), bytes);
        }
    }
}

void PagePool::set_used_rows(PageId page, std::int64_t rows) { use_of(page).rows = rows; }

std::byte* PagePool::row(int layer, int plane, PageId page, std::int64_t row) const {
    const Layer& of_layer = layers_[static_cast<std::size_t>(layer)];
    const Plane& of_plane = of_layer.format.planes[static_cast<std::size_t>(plane)];
    return arena_.data() + static_cast<std::size_t>(page) * page_bytes() + of_layer.offset_bytes +
           of_plane.offset_bytes + static_cast<std::size_t>(row) * of_plane.row_bytes;
}

std::size_t PagePool::used_bytes() const {
    std::int64_t rows = 0;
    for (const PageUse& use : page_use_) rows += use.rows;
    return static_cast<std::size_t>(rows) * bytes_per_token_ +
           static_cast<std::size_t>(sink_use_.rows) * sinks_.bytes_per_token();
}

}  // namespace mha2mla::cache
