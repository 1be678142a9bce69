#include "eval/log_sum_exp.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace mha2mla::eval {

double log_sum_exp(std::span<const float> logits) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit} - max);
    return std::log(sum) + max;
}

void log_sum_exp(std::span<const float> logits, std::span<double> out, core::ThreadPool& pool) {
    if (out.empty()) return;
    core::invariant(logits.size() % out.size() == 0, "all rows of logits are as long");
    const std::size_t vocab = logits.size() / out.size();
    pool.parallel_for(std::ssize(out), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
            out[row] = log_sum_exp(logits.subspan(row * vocab, vocab));
        }
    });
}

}  // namespace mha2mla::eval
