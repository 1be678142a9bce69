#include "finetune/batches.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/random.h"

namespace mha2mla::finetune {
namespace {

/// An endless sequence of all indices below `count`, shuffled anew each time round (Fisher and Yates).
class Order {
public:
    Order(std::size_t count, std::uint64_t seed) : indices_(count), next_(count), random_(seed) {
        std::iota(indices_.begin(), indices_.end(), std::size_t{0});
    }
    std::size_t next() {
        if (next_ == indices_.size()) shuffle();
        return indices_[next_++];
    }

private:
    void shuffle() {
        for (std::size_t i = indices_.size(); i > 1; --i) std::swap(indices_[i - 1], indices_[random_.below(i)]);
        next_ = 0;
    }

    std::vector<std::size_t> indices_;
    std::size_t next_;
    core::Random random_;
};

}  // namespace

std::vector<std::vector<Batch>> plan_batches(const std::vector<std::vector<int>>& windows, const Options& options) {
    core::invariant(!windows.empty(), "there is something to learn from");
    double shares = 0;
    for (const auto& stage : options.stages) shares += stage.share;
    Order order(windows.size(), options.seed);
    std::vector<std::vector<Batch>> plan;
    for (const auto& stage : options.stages) {
        auto left = std::max(1LL, std::llround(static_cast<double>(options.tokens) * stage.share / shares));
        auto& batches = plan.emplace_back();
        while (left > 0) {
            auto& batch = batches.emplace_back();
            while (batch.tokens < std::min<std::int64_t>(left, options.batch_tokens)) {
                batch.windows.push_back(order.next());
                batch.tokens += std::ssize(windows[batch.windows.back()]);
            }
            left -= batch.tokens;
        }
    }
    return plan;
}

MicroBatch::MicroBatch(const std::vector<std::vector<int>>& all, std::span<const std::size_t> chosen,
                       torch::Device device) {
    for (const auto index : chosen) lengths.push_back(std::ssize(all[index]));
    const auto longest = *std::max_element(lengths.begin(), lengths.end());
    ids_BT = torch::zeros({std::ssize(chosen), longest}, torch::kInt64);
    for (std::size_t row = 0; row < chosen.size(); ++row) {
        const auto& window = all[chosen[row]];
        std::copy(window.begin(), window.end(),
                  ids_BT.data_ptr<std::int64_t>() + static_cast<std::int64_t>(row) * longest);
    }
    ids_BT = ids_BT.to(device);
}

torch::Tensor MicroBatch::positions_before(std::int64_t left_out) const {
    std::vector<std::int64_t> positions;
    for (std::size_t row = 0; row < lengths.size(); ++row) {
        const auto first = static_cast<std::int64_t>(row) * ids_BT.size(1);
        for (std::int64_t t = 0; t + left_out < lengths[row]; ++t) positions.push_back(first + t);
    }
    return torch::tensor(positions, torch::kInt64).to(ids_BT.device());
}

}  // namespace mha2mla::finetune
