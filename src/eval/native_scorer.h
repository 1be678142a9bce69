#pragma once

#include "core/thread_pool.h"
#include "eval/perplexity.h"
#include "runtime/decoder.h"

namespace mha2mla::eval {

/// Scores windows with the native decoder: a fresh sequence each, log-softmax in double. Decoder and pool must outlive
/// the scorer; the decoder's context must hold a window.
WindowScorer native_scorer(runtime::Decoder& decoder, core::ThreadPool& pool);

}  // namespace mha2mla::eval
