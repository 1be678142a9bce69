#pragma once

#include <vector>

#include "core/json.h"

namespace mha2mla::checkpoint {

/// Token ids of a field that holds one id, a list of ids, or nothing; each below `vocab_size`.
std::vector<int> read_token_ids(const core::JsonObject& fields, const char* key, int vocab_size);

}  // namespace mha2mla::checkpoint
