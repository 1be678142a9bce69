#include <cstddef>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "eval/chinese_words_files.h"

namespace mha2mla::eval {
namespace {

void read_as_dictionary(const std::string& text) {
    try {
        parse_word_counts(text, "fuzz");
    } catch (const core::Error&) {
    }
}

/// In place of each of the three tables.
void read_as_tables(const std::string& text) {
    try {
        const auto shapes = parse_word_shapes({.start = text, .trans = text, .emit = text}, "fuzz");
        shapes.cut(U"\u4e00\u4e01\u4e03");
    } catch (const core::Error&) {
    }
}

}  // namespace
}  // namespace mha2mla::eval

/// Any text is read or is an Error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    mha2mla::eval::read_as_dictionary(text);
    mha2mla::eval::read_as_tables(text);
    return 0;
}
