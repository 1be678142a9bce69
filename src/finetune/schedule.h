#pragma once

#include <cstdint>

#include "finetune/options.h"

namespace mha2mla::finetune {

/// The learning rate of step `step` (from 0) of `steps`: a linear warm-up that ends at the full rate, then the decay.
double learning_rate(const Schedule& schedule, std::int64_t step, std::int64_t steps);

}  // namespace mha2mla::finetune
