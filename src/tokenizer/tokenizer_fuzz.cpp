#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "core/utf8.h"
#include "tokenizer/tokenizer.h"

/// A tokenizer.json, a zero byte, and a text for it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace mha2mla;
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const auto end = input.find('\0');
    const auto text =
        end == std::string_view::npos ? std::string_view("Hello  world \xf0\x9f\xa6\x99") : input.substr(end + 1);
    try {
        const auto tokenizer = tokenizer::tokenizer_from_json(input.substr(0, end), "input");
        for (const int id : tokenizer->encode(text, true)) {
            core::invariant(id >= 0 && id < tokenizer->vocab_size(), "ids are in the vocabulary");
        }
        const auto decoded = tokenizer->decode(tokenizer->encode(text, false, false), true);
        core::invariant(core::valid_utf8_prefix(decoded) == decoded.size(), "decoded text is UTF-8");
    } catch (const core::Error&) {
        return 0;  // the one way in which bad input may fail
    }
    return 0;
}
