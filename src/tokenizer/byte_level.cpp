#include "tokenizer/byte_level.h"

#include "core/utf8.h"

namespace mha2mla::tokenizer {
namespace {

constexpr char32_t first_stand_in = 0x100;

constexpr bool stands_for_itself(unsigned byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

struct Alphabet {
    std::array<std::string, 256> characters;        // by byte
    std::array<int, first_stand_in + 256> bytes{};  // by code point, -1 where none

    Alphabet() {
        bytes.fill(-1);
        char32_t stand_in = first_stand_in;
        for (unsigned byte = 0; byte < 256; ++byte) {
            const char32_t character = stands_for_itself(byte) ? byte : stand_in++;
            core::append_utf8(character, characters[byte]);
            bytes[character] = static_cast<int>(byte);
        }
    }
};

const Alphabet& alphabet() {
    static const Alphabet instance;
    return instance;
}

}  // namespace

const std::array<std::string, 256>& byte_characters() { return alphabet().characters; }

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
    std::string bytes;
    while (!token.empty()) {
        const auto step = core::read_utf8(token);
        const int byte = step.value < alphabet().bytes.size() ? alphabet().bytes[step.value] : -1;
        if (byte < 0) return std::nullopt;
        bytes += static_cast<char>(byte);
        token.remove_prefix(step.bytes);
    }
    return bytes;
}

std::string byte_level_spelling(std::string_view bytes) {
    std::string spelling;
    for (const char byte : bytes) spelling += byte_characters()[static_cast<unsigned char>(byte)];
    return spelling;
}

}  // namespace mha2mla::tokenizer
