#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/characters.h"

namespace mha2mla::tokenizer {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
    std::stable_sort(tokens_.begin(), tokens_.end(),
                     [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
    for (const auto& token : tokens_) first_bytes_.set(static_cast<unsigned char>(token.content.front()));
}

void AddedTokens::split(std::string_view text, bool parse_special, core::FunctionRef<void(const Piece&)> emit) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
        const AddedToken* token = longest_match(text.substr(at));
        if (token == nullptr) {
            ++at;
            continue;
        }
        const auto before = text.substr(done, at - done);
        const auto after = text.substr(at + token->content.size());
        at += token->content.size();
        // A match that does not count still hides matches inside it.
        if (!is_wanted(*token, text.substr(0, at - token->content.size()), after, parse_special)) continue;
        const auto kept = before.substr(0, before.size() - (token->lstrip ? trailing_space(before) : 0));
        if (!kept.empty()) emit({kept, std::nullopt});
        at += token->rstrip ? leading_space(after) : 0;
        done += kept.size();
        emit({text.substr(done, at - done), token->id});
        done = at;
    }
    if (done < text.size()) emit({text.substr(done), std::nullopt});
}

/// Narrows the sorted tokens byte by byte to those that the text begins with.
const AddedToken* AddedTokens::longest_match(std::string_view text) const {
    if (!first_bytes_.test(static_cast<unsigned char>(text.front()))) return nullptr;
    const AddedToken* longest = nullptr;
    auto first = tokens_.begin();
    auto last = tokens_.end();
    for (std::size_t length = 0; first != last && length < text.size(); ++length) {
        const auto byte = static_cast<unsigned char>(text[length]);
        const auto byte_of = [&](const AddedToken& token) { return static_cast<unsigned char>(token.content[length]); };
        first = std::partition_point(first, last, [&](const auto& token) { return byte_of(token) < byte; });
        last = std::partition_point(first, last, [&](const auto& token) { return byte_of(token) == byte; });
        // Tokens that end here sort before those that go on.
        if (first != last && first->content.size() == length + 1) longest = &*first;
        while (first != last && first->content.size() == length + 1) ++first;
    }
    return longest;
}

bool AddedTokens::is_wanted(const AddedToken& token, std::string_view before, std::string_view after,
                            bool parse_special) const {
    if (token.special && !parse_special) return false;
    return !token.single_word || (!ends_with_word(before) && !starts_with_word(after));
}

}  // namespace mha2mla::tokenizer
