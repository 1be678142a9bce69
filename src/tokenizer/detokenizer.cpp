#include "core/utf8.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {
namespace {

using core::Utf8Step;

/// Moves what is complete from the front of `pending` to the result; errors become U+FFFD.
std::string take_complete(std::string& pending) {
    std::string text;
    std::size_t done = 0;
    while (done < pending.size()) {
        const auto step = core::read_utf8(std::string_view(pending).substr(done));
        if (step.kind == Utf8Step::Kind::incomplete) break;
        core::append_utf8(step.value, text);
        done += step.bytes;
    }
    pending.erase(0, done);
    return text;
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool special) : tokenizer_(tokenizer), special_(special) {}

std::string Detokenizer::push(int id) {
    std::string bytes = tokenizer_.token_bytes(id, special_);
    if (bytes.empty()) return {};
    if (at_start_ && tokenizer_.drops_leading_space() && bytes.front() == ' ') bytes.erase(0, 1);
    at_start_ = false;
    pending_ += bytes;
    return take_complete(pending_);
}

std::string Detokenizer::finish() {
    const std::string rest = core::replace_invalid_utf8(pending_);
    pending_.clear();
    at_start_ = true;
    return rest;
}

}  // namespace mha2mla::tokenizer
