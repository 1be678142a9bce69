#include "tokenizer/vocabulary.h"

#include <fmt/format.h>
#include <functional>

#include "core/error.h"

namespace mha2mla::tokenizer {

void Vocabulary::add(std::string token, std::int64_t id, const std::string& where) {
    if (id < 0 || id >= max_token_id) {
        throw core::Error({.what = fmt::format("token '{}' has an id that is not usable", token),
                           .expected = fmt::format("0 to {}", max_token_id - 1),
                           .got = fmt::to_string(id),
                           .where = where});
    }
    const int number = static_cast<int>(id);
    if (has(number)) {
        throw core::Error(
            {.what = fmt::format("tokens '{}' and '{}' have the same id {}", this->token(number), token, id),
             .where = where});
    }
    if (const auto other = id_of(token)) {
        throw core::Error(
            {.what = fmt::format("token '{}' has two ids, {} and {}", token, *other, id), .where = where});
    }
    if (2 * (count_ + 1) > slots_.size()) grow();
    if (number >= size()) {
        tokens_.resize(static_cast<std::size_t>(number) + 1);
        used_.resize(tokens_.size());
    }
    slots_[slot_of(token)] = number;
    tokens_[static_cast<std::size_t>(number)] = std::move(token);
    used_[static_cast<std::size_t>(number)] = true;
    ++count_;
}

std::optional<int> Vocabulary::id_of(std::string_view token) const {
    if (slots_.empty()) return std::nullopt;
    const int id = slots_[slot_of(token)];
    return id < 0 ? std::nullopt : std::optional(id);
}

/// Where the token is, or where it belongs.
std::size_t Vocabulary::slot_of(std::string_view token) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = std::hash<std::string_view>{}(token)&mask;
    while (slots_[slot] >= 0 && this->token(slots_[slot]) != token) slot = (slot + 1) & mask;
    return slot;
}

void Vocabulary::grow() {
    const auto old = std::move(slots_);
    slots_.assign(old.empty() ? 1024 : 2 * old.size(), -1);
    for (const int id : old) {
        if (id >= 0) slots_[slot_of(token(id))] = id;
    }
}

}  // namespace mha2mla::tokenizer
