#include "eval/native_scorer.h"

#include <algorithm>
#include <cmath>

namespace mha2mla::eval {
namespace {

double negative_log_probability(std::span<const float> logits, int token) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit - max);
    return std::log(sum) + max - logits[static_cast<std::size_t>(token)];
}

}  // namespace

WindowScorer native_scorer(runtime::Decoder& decoder) {
    return [&decoder](std::span<const int> tokens) {
        std::vector<double> scores(tokens.size() - 1);
        auto sequence = decoder.new_sequence();
        // The last token is only predicted, never read.
        decoder.forward_all(sequence, tokens.first(tokens.size() - 1),
                            [&](std::int64_t i, std::span<const float> logits) {
                                scores[static_cast<std::size_t>(i)] =
                                    negative_log_probability(logits, tokens[static_cast<std::size_t>(i) + 1]);
                            });
        return scores;
    };
}

}  // namespace mha2mla::eval
