#pragma once

#include <memory>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"
#include "finetune/source_states.h"

namespace mha2mla::cli {

/// The native runtime on windows of up to `window` tokens, its weights in bf16. The session must outlive it.
std::unique_ptr<finetune::SourceStates> native_states(const checkpoint::Checkpoint& source, int window,
                                                      Session& session);

}  // namespace mha2mla::cli
