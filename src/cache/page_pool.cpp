#include "cache/page_pool.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "cache/page_codec.h"
#include "core/error.h"

namespace mha2mla::cache {

PagePool::PagePool(std::vector<PageFormat> layers, std::int64_t context_tokens, SinkFormat sinks)
    : sinks_(std::move(sinks)) {
    core::invariant(sinks_.tokens >= 0 && sinks_.tokens <= page_tokens, "sinks lie in the first page");
    core::invariant(context_tokens > 0, "a cache holds at least one token");
    const std::int64_t pages = (context_tokens + page_tokens - 1) / page_tokens;
    page_use_.resize(static_cast<std::size_t>(pages));
    std::size_t open_bytes = 0;
    std::size_t largest_layer_bytes = 0;
    for (PageFormat& format : layers) {
        seals_ = seals_ || format.seals();
        const std::size_t offset_bytes = std::exchange(page_bytes_, page_bytes_ + format.full_page_bytes());
        const std::size_t open_offset_bytes = std::exchange(open_bytes, open_bytes + format.page_bytes());
        largest_layer_bytes = std::max(largest_layer_bytes, format.page_bytes());
        layers_.push_back(
            {.format = std::move(format), .offset_bytes = offset_bytes, .open_offset_bytes = open_offset_bytes});
    }
    arena_ = Arena(capacity_bytes(), PageSize::huge);
    free_.reserve(page_use_.size());
    for (auto page = static_cast<PageId>(pages); page > 0; --page) free_.push_back(page - 1);
    if (!seals_) return;
    for (const Layer& layer : layers_) core::invariant(layer.format.seals(), "either all layers are sealed or none");
    add_slots(open_, open_bytes);
    add_slots(staged_, largest_layer_bytes);
}

void PagePool::add_slots(Slots& slots, std::size_t slot_bytes) const {
    slots.slot_bytes = slot_bytes;
    slots.arena = Arena(slot_bytes * page_use_.size());
    slots.free.reserve(page_use_.size());
    for (auto slot = static_cast<std::int32_t>(page_use_.size()); slot > 0; --slot) slots.free.push_back(slot - 1);
}

PageId PagePool::allocate(Writing writing) {
    if (free_.empty()) {
        throw core::Error({.what = "the context is full",
                           .expected = "at most " + std::to_string(capacity_tokens()) + " tokens in all sequences",
                           .remedy = "pass a larger --context"});
    }
    const PageId page = free_.back();
    free_.pop_back();
    use_of(page) = {.references = 1};
    take_slot(page, writing);
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
    give_slot_back(page);
    free_.push_back(page);
}

void PagePool::take_slot(PageId page, Writing writing) {
    if (!seals_) return;
    Slots& slots = slots_of(writing);
    use_of(page).writing = writing;
    use_of(page).slot = slots.free.back();  // there are as many as pages
    slots.free.pop_back();
}

void PagePool::give_slot_back(PageId page) {
    PageUse& use = use_of(page);
    if (use.slot == no_slot) return;
    slots_of(use.writing).free.push_back(std::exchange(use.slot, no_slot));
}

void PagePool::seal(int layer, PageId page) const {
    if (seals_) seal_page(format(layer), exact_page(layer, page), full_page(layer, page));
}

void PagePool::close(PageId page) { give_slot_back(page); }

void PagePool::reopen(PageId page, std::int64_t rows) {
    core::invariant(is_sealed(page) && !is_shared(page), "a sealed page of one sequence is opened again");
    take_slot(page, Writing::token_by_token);
    for (int layer = 0; layer < layers(); ++layer) {
        unseal_rows(format(layer), full_page(layer, page), rows, exact_page(layer, page));
    }
}

void PagePool::copy_rows(PageId from, PageId to, std::int64_t rows) {
    for (int layer = 0; layer < layers(); ++layer) {
        if (is_sealed(from)) {
            unseal_rows(format(layer), full_page(layer, from), rows, exact_page(layer, to));
            continue;
        }
        const auto& planes = format(layer).planes;
        for (int plane = 0; plane < static_cast<int>(planes.size()); ++plane) {
            const std::size_t bytes =
                planes[static_cast<std::size_t>(plane)].row_bytes * static_cast<std::size_t>(rows);
            std::memcpy(row(layer, plane, to, 0), row(layer, plane, from, 0), bytes);
        }
    }
}

void PagePool::set_used_rows(PageId page, std::int64_t rows) { use_of(page).rows = rows; }

std::byte* PagePool::full_page(int layer, PageId page) const {
    return arena_.data() + static_cast<std::size_t>(page) * page_bytes() +
           layers_[static_cast<std::size_t>(layer)].offset_bytes;
}

std::byte* PagePool::exact_page(int layer, PageId page) const {
    if (!seals_) return full_page(layer, page);
    const PageUse& use = use_of(page);
    core::invariant(use.slot != no_slot, "a sealed page has no exact rows");
    const Slots& slots = slots_of(use.writing);
    const std::size_t offset =
        use.writing == Writing::token_by_token ? layers_[static_cast<std::size_t>(layer)].open_offset_bytes : 0;
    return slots.arena.data() + static_cast<std::size_t>(use.slot) * slots.slot_bytes + offset;
}

std::byte* PagePool::row(int layer, int plane, PageId page, std::int64_t row) const {
    const Plane& of_plane = format(layer).planes[static_cast<std::size_t>(plane)];
    return exact_page(layer, page) + of_plane.offset_bytes + static_cast<std::size_t>(row) * of_plane.row_bytes;
}

const std::byte* PagePool::sealed_rows(int layer, int plane, PageId page) const {
    return full_page(layer, page) + format(layer).sealed_start(plane);
}

std::size_t PagePool::bytes_per_token() const {
    constexpr auto tokens = static_cast<std::size_t>(page_tokens);
    return (page_bytes_ + tokens - 1) / tokens;
}

std::size_t PagePool::allocated_bytes(PageId page) const {
    const PageUse& use = use_of(page);
    return page_bytes() + (use.slot == no_slot ? 0 : slots_of(use.writing).slot_bytes);
}

std::size_t PagePool::used_bytes(PageId page, std::int64_t rows) const {
    const PageUse& use = use_of(page);
    const std::size_t of_page = use.slot == no_slot ? page_bytes() : slots_of(use.writing).slot_bytes;
    return of_page * static_cast<std::size_t>(rows) / static_cast<std::size_t>(page_tokens);
}

std::size_t PagePool::allocated_bytes() const {
    const auto in_use = [&](const Slots& slots) {
        return seals_ ? slots.slot_bytes * (page_use_.size() - slots.free.size()) : 0;
    };
    return page_bytes() * (page_use_.size() - free_.size()) + in_use(open_) + in_use(staged_) +
           sinks_.bytes() * sink_use_.sequences;
}

std::size_t PagePool::used_bytes() const {
    std::size_t bytes = static_cast<std::size_t>(sink_use_.rows) * sinks_.bytes_per_token();
    for (PageId page = 0; page < pages(); ++page) bytes += used_bytes(page, use_of(page).rows);
    return bytes;
}

}  // namespace mha2mla::cache
