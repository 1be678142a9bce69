#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mha2mla::data {

/// A text as tokens, and the name that errors call it by.
struct TokenStream {
    std::string name;
    std::vector<int> tokens;
};

struct MixOptions {
    int windows = 16;   ///< how many at most
    int window = 1024;  ///< tokens of each
    std::uint64_t seed = 0;
};

/// Windows from several texts, in turn. Each text gives as many as the others, as far as it has them, one from each of
/// as many equal parts, so that the whole of it is seen and none overlap; the seed says where in its part a window
/// lies. Throws Error naming a text that has no whole window, and where there are more texts than windows.
std::vector<std::vector<int>> mix_windows(const std::vector<TokenStream>& texts, const MixOptions& options);

}  // namespace mha2mla::data
