#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"
#include "data/text_windows.h"
#include "parallel/communicator.h"

namespace mha2mla::cli {

/// What a model is to write.
struct SampledTextOptions {
    std::vector<float> temperatures{1};  ///< windows take turns
    int windows = 16;
    int window = 1024;             ///< tokens
    std::size_t memory_bytes = 0;  ///< bounds how many windows are sampled together
};

/// Windows that the model itself writes, natively, behind openings of many kinds of text, with the session's seed; each
/// process writes its share, and gets all. Throws Error where the model does not fit in memory.
data::TextWindows sampled_text(const checkpoint::Checkpoint& model, const SampledTextOptions& options, Session& session,
                               const parallel::Communicator& processes);

/// What its origin is called.
std::string sampled_origin(const SampledTextOptions& options, std::uint64_t seed);

}  // namespace mha2mla::cli
