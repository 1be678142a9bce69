#pragma once

#include <cstddef>
#include <vector>

namespace mha2mla::data {

/// Cuts each document into consecutive windows of `window` tokens; what is left over at its end is a shorter one, and
/// dropped where it has less than `shortest` tokens. No window holds tokens of two documents.
std::vector<std::vector<int>> document_windows(const std::vector<std::vector<int>>& documents, int window,
                                               int shortest);

/// Windows of several texts, about `tokens` tokens or all there are: each text gives as many tokens as the others, as
/// far as it has them, in windows evenly spread over its length.
std::vector<std::vector<int>> mix_evenly(std::vector<std::vector<std::vector<int>>> texts, std::size_t tokens);

}  // namespace mha2mla::data
