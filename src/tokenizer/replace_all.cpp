#include "tokenizer/replace_all.h"

namespace mha2mla::tokenizer {

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
    std::string result;
    result.reserve(text.size() + text.size() / 2);
    for (std::size_t at = 0;;) {
        const std::size_t found = text.find(pattern, at);
        result.append(text.substr(at, found - at));
        if (found == std::string_view::npos) return result;
        result.append(content);
        at = found + pattern.size();
    }
}

}  // namespace mha2mla::tokenizer
