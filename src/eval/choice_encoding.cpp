#include "eval/choice_encoding.h"

#include <algorithm>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

/// With the token that begins a text, once, where the tokenizer adds it to texts that name it themselves, too.
std::vector<int> encode_text(const tokenizer::Tokenizer& words, std::string_view text, int bos) {
    auto tokens = words.encode(text, true);
    if (tokens.size() > 1 && tokens[0] == bos && tokens[1] == bos) tokens.erase(tokens.begin());
    return tokens;
}

}  // namespace

TokenChoice encode(const Choice& choice, const tokenizer::Tokenizer& words, int bos, const std::string& where) {
    const std::size_t end = choice.context.find_last_not_of(" \t\n\v\f\r") + 1;  // npos + 1 is 0
    TokenChoice tokens{.context = encode_text(words, std::string_view(choice.context).substr(0, end), bos),
                       .continuation = encode_text(words, choice.context + choice.continuation, bos)};
    const auto split = std::min(tokens.context.size(), tokens.continuation.size());
    tokens.continuation.erase(tokens.continuation.begin(),
                              tokens.continuation.begin() + static_cast<std::ptrdiff_t>(split));
    if (tokens.context.empty()) tokens.context.push_back(bos);
    if (tokens.continuation.empty()) {
        throw core::Error({.what = "a continuation has no tokens", .got = choice.continuation, .where = where});
    }
    return tokens;
}

}  // namespace mha2mla::eval
