#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::tokenizer {

/// Token ids of vocabularies lie below this (the largest published ones have 262,144 tokens).
constexpr int max_token_id = 1 << 21;

/// Token strings as the tokenizer file spells them, by id and by string. Ids may have gaps.
class Vocabulary {
public:
    /// Throws Error where the id or the string is taken, or the id is out of range. `where` names the file.
    void add(std::string token, std::int64_t id, const std::string& where);

    std::optional<int> id_of(std::string_view token) const;
    bool has(int id) const { return id >= 0 && id < size() && used_[static_cast<std::size_t>(id)]; }
    /// The string of an id that is in the vocabulary.
    const std::string& token(int id) const { return tokens_[static_cast<std::size_t>(id)]; }
    /// One more than the largest id.
    int size() const { return static_cast<int>(tokens_.size()); }

private:
    std::size_t slot_of(std::string_view token) const;
    void grow();

    std::vector<std::string> tokens_;  // by id
    std::vector<bool> used_;           // by id
    std::vector<int> slots_;           // open addressing: ids, -1 where free; a power of two
    std::size_t count_ = 0;
};

}  // namespace mha2mla::tokenizer
