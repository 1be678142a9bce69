#pragma once

#include <vector>

namespace mha2mla::data {

/// Cuts each document into consecutive windows of `window` tokens; what is left over at its end is a shorter one, and
/// dropped where it has less than `shortest` tokens. No window holds tokens of two documents.
std::vector<std::vector<int>> document_windows(const std::vector<std::vector<int>>& documents, int window, int shortest);

}  // namespace mha2mla::data
