#include "runtime/prefix_index.h"

#include <algorithm>

#include "cache/page_format.h"
#include "core/error.h"

namespace mha2mla::runtime {
namespace {

/// Hashes of the beginnings that end with a page, for `pages` pages.
std::vector<std::uint64_t> page_hashes(std::span<const int> tokens, std::int64_t pages) {
    std::vector<std::uint64_t> hashes;
    std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a over tokens
    for (std::int64_t page = 0; page < pages; ++page) {
        for (std::int64_t i = page * cache::page_tokens; i < (page + 1) * cache::page_tokens; ++i) {
            hash = (hash ^ static_cast<std::uint64_t>(tokens[static_cast<std::size_t>(i)])) * 0x100000001b3U;
        }
        hashes.push_back(hash);
    }
    return hashes;
}

}  // namespace

void PrefixIndex::add(Holder holder, std::span<const int> tokens) {
    Entry& entry = entries_[holder];
    const std::int64_t pages = std::ssize(tokens) / cache::page_tokens;
    entry.hashes = page_hashes(tokens, pages);
    entry.tokens.assign(tokens.begin(), tokens.begin() + pages * cache::page_tokens);
    entry.used = ++clock_;
    for (const std::uint64_t hash : entry.hashes) pages_.try_emplace(hash, holder);
}

void PrefixIndex::remove(Holder holder) {
    const auto found = entries_.find(holder);
    if (found == entries_.end()) return;
    for (const std::uint64_t hash : found->second.hashes) {
        const auto page = pages_.find(hash);
        if (page != pages_.end() && page->second == holder) pages_.erase(page);
    }
    entries_.erase(found);
}

std::optional<PrefixIndex::Match> PrefixIndex::find(std::span<const int> tokens) {
    if (tokens.empty()) return {};
    const auto hashes = page_hashes(tokens, (std::ssize(tokens) - 1) / cache::page_tokens);
    for (std::int64_t pages = std::ssize(hashes); pages > 0; --pages) {
        const auto found = pages_.find(hashes[static_cast<std::size_t>(pages - 1)]);
        if (found == pages_.end()) continue;
        Entry& entry = entries_.at(found->second);
        const auto shared = tokens.first(static_cast<std::size_t>(pages * cache::page_tokens));
        if (!std::equal(shared.begin(), shared.end(), entry.tokens.begin())) continue;
        entry.used = ++clock_;
        return Match{.holder = found->second, .tokens = std::ssize(shared)};
    }
    return {};
}

void PrefixIndex::retire(Holder holder) {
    const auto found = entries_.find(holder);
    core::invariant(found != entries_.end(), "a retired holder has pages");
    found->second.retired = true;
    found->second.used = ++clock_;
}

std::optional<PrefixIndex::Holder> PrefixIndex::least_recent() const {
    const std::pair<const Holder, Entry>* least = nullptr;
    for (const auto& entry : entries_) {
        if (entry.second.retired && (least == nullptr || entry.second.used < least->second.used)) least = &entry;
    }
    return least == nullptr ? std::nullopt : std::optional(least->first);
}

}  // namespace mha2mla::runtime
