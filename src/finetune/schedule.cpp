#include "finetune/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mha2mla::finetune {
namespace {

/// What is left of the rate when a share `done` of the steps after the warm-up is over.
double decayed(const Schedule& schedule, double done) {
    switch (schedule.decay) {
        case Decay::none: return 1;
        case Decay::cosine: return 0.5 * (1 + std::cos(std::numbers::pi * done));
        case Decay::inverse_sqrt: break;
    }
    const double begin = 1 - schedule.cooldown;
    return done <= begin ? 1 : 1 - std::sqrt((done - begin) / schedule.cooldown);
}

}  // namespace

double learning_rate(const Schedule& schedule, std::int64_t step, std::int64_t steps) {
    const double warmup = std::ceil(schedule.warmup * static_cast<double>(steps));
    const auto at = static_cast<double>(step);
    if (at < warmup) return schedule.learning_rate * (at + 1) / warmup;
    const double rest = std::max(1.0, static_cast<double>(steps) - warmup);
    return schedule.learning_rate * decayed(schedule, (at - warmup) / rest);
}

}  // namespace mha2mla::finetune
