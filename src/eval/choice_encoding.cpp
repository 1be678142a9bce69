#include "eval/choice_encoding.h"

#include <algorithm>

#include "core/error.h"

namespace mha2mla::eval {

TokenChoice encode(const Choice& choice, const tokenizer::Tokenizer& words, int bos, const std::string& where) {
    const std::size_t end = choice.context.find_last_not_of(" \t\n\v\f\r") + 1;  // npos + 1 is 0
    TokenChoice tokens{.context = words.encode(std::string_view(choice.context).substr(0, end), true),
                       .continuation = words.encode(choice.context + choice.continuation, true)};
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
