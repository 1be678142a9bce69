#include "eval/choice_encoding.h"

#include "core/error.h"

namespace mha2mla::eval {

TokenChoice encode(const Choice& choice, const tokenizer::Tokenizer& words, int bos, const std::string& where) {
    const std::size_t end = choice.context.find_last_not_of(" \t\n\v\f\r") + 1;  // npos + 1 is 0
    auto context = words.encode(std::string_view(choice.context).substr(0, end), true);
    auto whole = words.encode(choice.context + choice.continuation, true);
    const auto split = std::min(context.size(), whole.size());
    TokenChoice tokens{.context = {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(split)},
                       .continuation = {whole.begin() + static_cast<std::ptrdiff_t>(split), whole.end()}};
    // Tokens may join across the border: the context is then scored as it stands alone.
    tokens.context = std::move(context);
    if (tokens.context.empty()) tokens.context.push_back(bos);
    if (tokens.continuation.empty()) {
        throw core::Error({.what = "a continuation has no tokens", .got = choice.continuation, .where = where});
    }
    return tokens;
}

}  // namespace mha2mla::eval
