#pragma once

#include "eval/perplexity.h"
#include "runtime/decoder.h"

namespace mha2mla::eval {

/// Scores windows with the native decoder: a fresh sequence each, log-softmax in double. The decoder must outlive the
/// scorer and have a context of at least one window.
WindowScorer native_scorer(runtime::Decoder& decoder);

}  // namespace mha2mla::eval
