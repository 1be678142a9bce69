#pragma once

#include "core/function_ref.h"

namespace mha2mla::cli {

/// Runs what several processes share. Where one of them fails or is stopped, the others would wait for it for ever:
/// they are ended, and the exception goes on. `on_stop` comes first after a stop request: a remark on what is kept.
void run_shared(core::FunctionRef<void()> work, core::FunctionRef<void()> on_stop);

}  // namespace mha2mla::cli
