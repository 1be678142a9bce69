#include "checkpoint/gguf_reader.h"

#include <fmt/format.h>

#include "core/error.h"

namespace mha2mla::checkpoint {

std::string quoted(std::string_view text) {
    constexpr std::size_t longest = 80;
    std::string shown(text.substr(0, longest));
    for (char& c : shown) {
        if (c < ' ' || c > '~') c = '?';
    }
    return fmt::format("'{}{}'", shown, text.size() > longest ? "..." : "");
}

std::string_view GgufReader::string() {
    const auto bytes = take(number<std::uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> GgufReader::take(std::uint64_t bytes) {
    if (bytes > remaining()) {
        fail(fmt::format("the header ends too early: {} bytes wanted at byte {}, {} left", bytes, position_,
                         remaining()));
    }
    position_ += bytes;
    return bytes_.subspan(position_ - bytes, bytes);
}

std::uint64_t GgufReader::count(std::uint64_t claimed, std::size_t bytes_each, std::string_view what) const {
    if (claimed > remaining() / bytes_each) {
        fail(fmt::format("the header claims {} {} where {} bytes are left", claimed, what, remaining()));
    }
    return claimed;
}

void GgufReader::fail(const std::string& what) const {
    throw core::Error({.what = what, .where = where_, .remedy = "the file is truncated or damaged: fetch it again"});
}

}  // namespace mha2mla::checkpoint
