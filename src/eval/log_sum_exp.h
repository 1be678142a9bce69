#pragma once

#include <span>

#include "core/thread_pool.h"

namespace mha2mla::eval {

/// log of the sum of exp(logit) over the vocabulary, in double: logit - log_sum_exp is log softmax.
double log_sum_exp(std::span<const float> logits);

/// The same of each row of logits [out.size(), vocab_size], rows spread over the pool.
void log_sum_exp(std::span<const float> logits, std::span<double> out, core::ThreadPool& pool);

}  // namespace mha2mla::eval
