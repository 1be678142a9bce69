#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <torch/torch.h>
#include <vector>

#include "parallel/communicator.h"

namespace mha2mla::finetune {

/// How processes share out an optimizer's state, and what they send each other for a step (ZeRO-1, arXiv 1910.02054).
/// Parameters lie in buckets. A bucket's owner gets the sum of everybody's gradients, keeps the moments, makes the step
/// and hands the new values to all. Every process makes the same calls in the same order. One that is alone owns
/// everything and sends nothing.
class Shards {
public:
    /// A few megabytes: several are under way while a backward pass runs, and each is long enough to be sent at once.
    static constexpr std::int64_t default_bucket_numbers = 1 << 20;

    /// `parameters`: leaves of one type (fp32 or fp64) and device, in the order in which backward passes finish their
    /// gradients, which become parts of the buckets' buffers for as long as the object lives. A bucket is closed as
    /// soon as it has `bucket_numbers`, or its share of a small model.
    Shards(const std::vector<torch::Tensor>& parameters, const parallel::Communicator& processes,
           std::int64_t bucket_numbers = default_bucket_numbers);
    ~Shards();
    Shards(const Shards&) = delete;
    Shards& operator=(const Shards&) = delete;

    /// The parameters that are this process's, in the given order.
    std::vector<torch::Tensor> owned() const;
    /// The process that a parameter falls to; none where it does not learn now.
    std::optional<int> owner_of(const torch::Tensor& parameter) const;

    void clear_gradients();
    /// The next gradient of each parameter is the last one before collect(): a bucket whose gradients are there begins
    /// its way to the owner while the backward pass goes on, after the buckets before it.
    void send_when_complete();
    /// Sends what was not sent, and waits: owners have the sums, the gradients of others are anything.
    void collect();
    /// Hands the owners' values to all. Uses up the gradients.
    void distribute();
    /// The owner's numbers for one of its parameters, such as a moment, for every process; others pass none.
    torch::Tensor from_owner(const torch::Tensor& parameter, const torch::Tensor& numbers) const;

private:
    struct Bucket;
    void fill_buckets(const std::vector<torch::Tensor>& parameters, std::int64_t bucket_numbers);
    void choose_owners();
    void watch(Bucket& bucket);
    void send_complete_buckets();

    const parallel::Communicator& processes_;
    std::vector<Bucket> buckets_;
    std::size_t sent_ = 0;  // buckets on their way: always the first ones, so that all processes send the same
    bool sending_ = false;
    std::mutex completing_;  // layers may learn at once
};

}  // namespace mha2mla::finetune
