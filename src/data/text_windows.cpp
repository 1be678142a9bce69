#include "data/text_windows.h"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>

namespace mha2mla::data {
namespace {

bool is_token(const core::Json& json, int vocab_size) {
    if (!json.is_number_integer()) return false;
    const auto id = json.get<std::int64_t>();
    return id >= 0 && id < vocab_size;
}

bool is_window(const core::Json& json, int vocab_size) {
    return json.is_array() &&
           std::all_of(json.begin(), json.end(), [&](const auto& token) { return is_token(token, vocab_size); });
}

}  // namespace

std::vector<std::vector<int>> read_windows(const core::JsonObject& document, const char* field, int vocab_size) {
    const auto& json = document.raw(field);
    const bool good = json.is_array() && std::all_of(json.begin(), json.end(),
                                                     [&](const auto& window) { return is_window(window, vocab_size); });
    if (!good) document.fail(field, fmt::format("windows of tokens, each 0..{}", vocab_size - 1));
    return json.get<std::vector<std::vector<int>>>();
}

}  // namespace mha2mla::data
