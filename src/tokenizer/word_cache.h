#pragma once

#include <algorithm>
#include <bit>
#include <functional>
#include <string_view>
#include <vector>

namespace mha2mla::tokenizer {

/// Remembers where in the output a word's ids are, so that a repeated word is copied instead of merged again. Bounded:
/// a newer word takes the slot of an older one. Words must stay in place while the cache lives.
class WordCache {
public:
    explicit WordCache(std::size_t text_bytes)
        : slots_(std::bit_ceil(std::clamp<std::size_t>(text_bytes / 8, 1, max_slots))) {}

    /// Appends the ids of a word that was seen before; false where it is not remembered.
    bool replay(std::string_view word, std::vector<int>& ids) const {
        const Slot& slot = slots_[slot_of(word)];
        if (slot.word != word) return false;
        for (std::size_t i = 0; i < slot.count; ++i) ids.push_back(ids[slot.begin + i]);
        return true;
    }

    /// Notes that the word's ids are those from `begin` to the end.
    void remember(std::string_view word, std::size_t begin, const std::vector<int>& ids) {
        slots_[slot_of(word)] = {word, begin, ids.size() - begin};
    }

private:
    struct Slot {
        std::string_view word = {};
        std::size_t begin = 0;
        std::size_t count = 0;
    };
    static constexpr std::size_t max_slots = 1 << 15;

    std::size_t slot_of(std::string_view word) const {
        return std::hash<std::string_view>{}(word) & (slots_.size() - 1);
    }

    std::vector<Slot> slots_;
};

}  // namespace mha2mla::tokenizer
