#include "finetune/shards.h"

#include <algorithm>
#include <mutex>
#include <span>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <utility>

#include "core/error.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;

/// Of a tensor in the machine's own memory.
parallel::Numbers numbers_of(const Tensor& tensor) {
    const auto count = static_cast<std::size_t>(tensor.numel());
    if (tensor.scalar_type() == torch::kFloat64) return std::span(tensor.data_ptr<double>(), count);
    return std::span(tensor.data_ptr<float>(), count);
}

}  // namespace

struct Shards::Bucket {
    struct Part {
        Tensor parameter;
        Tensor numbers;  // its place in the bucket's buffer, and its gradient
        bool complete = false;
        std::shared_ptr<torch::autograd::Node> grad_accumulator;
        std::uintptr_t hook = 0;
    };

    /// Makes the parameters' gradients parts of one buffer.
    void allocate() {
        std::int64_t size = 0;
        for (const auto& part : parts) size += part.parameter.numel();
        numbers = torch::zeros({size}, parts.front().parameter.options().requires_grad(false));
        std::int64_t begin = 0;
        for (auto& part : parts) {
            const auto end = begin + part.parameter.numel();
            part.numbers = numbers.slice(0, begin, end).view(part.parameter.sizes());
            part.parameter.mutable_grad() = part.numbers;
            begin = end;
        }
    }
    bool complete() const {
        return std::all_of(parts.begin(), parts.end(), [](const Part& part) { return part.complete; });
    }
    void begin_sum(const parallel::Communicator& processes) {
        on_host = numbers.to(torch::kCPU);
        exchange = processes.begin_sum_at(owner, numbers_of(on_host));
    }
    void begin_broadcast(const parallel::Communicator& processes) {
        for (const auto& part : parts) part.numbers.copy_(part.parameter);
        on_host = numbers.to(torch::kCPU);
        exchange = processes.begin_broadcast(owner, numbers_of(on_host));
    }
    void wait() {
        exchange->wait();
        exchange.reset();
        if (!numbers.is_same(on_host)) numbers.copy_(on_host);
        on_host.reset();
    }

    std::vector<Part> parts;
    Tensor numbers;
    int owner = 0;
    Tensor on_host;  // the same numbers on their way
    std::unique_ptr<parallel::Exchange> exchange;
};

Shards::Shards(const std::vector<Tensor>& parameters, const parallel::Communicator& processes,
               std::int64_t bucket_numbers)
    : processes_(processes) {
    fill_buckets(parameters, bucket_numbers);
    choose_owners();
    if (processes_.size() == 1) return;
    for (auto& bucket : buckets_) watch(bucket);
}

Shards::~Shards() {
    for (auto& bucket : buckets_) {
        for (auto& part : bucket.parts) {
            if (part.grad_accumulator) part.grad_accumulator->del_post_hook(part.hook);
            part.parameter.mutable_grad().reset();
        }
    }
}

/// No process is left without a bucket because the model is small.
void Shards::fill_buckets(const std::vector<Tensor>& parameters, std::int64_t bucket_numbers) {
    std::int64_t total = 0;
    for (const auto& parameter : parameters) total += parameter.numel();
    const auto full = std::min(bucket_numbers, (total + processes_.size() - 1) / processes_.size());
    std::int64_t filled = full;
    for (const auto& parameter : parameters) {
        if (filled >= full) {
            buckets_.emplace_back();
            filled = 0;
        }
        buckets_.back().parts.push_back({.parameter = parameter, .numbers = {}, .grad_accumulator = {}});
        filled += parameter.numel();
    }
    for (auto& bucket : buckets_) bucket.allocate();
}

/// Each bucket falls to the process that has least.
void Shards::choose_owners() {
    std::vector<std::int64_t> owned(static_cast<std::size_t>(processes_.size()));
    for (auto& bucket : buckets_) {
        const auto least = std::min_element(owned.begin(), owned.end());
        bucket.owner = static_cast<int>(least - owned.begin());
        *least += bucket.numbers.numel();
    }
}

/// Asks a backward pass to say which gradients are there.
void Shards::watch(Bucket& bucket) {
    for (auto& part : bucket.parts) {
        part.grad_accumulator = torch::autograd::impl::grad_accumulator(part.parameter);
        part.hook = part.grad_accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
            [this, complete = &part.complete](const auto& outputs, const auto&) {
                const std::lock_guard lock(completing_);
                if (sending_) {
                    core::invariant(!*complete, "a gradient is complete once");
                    *complete = true;
                    send_complete_buckets();
                }
                return outputs;
            }));
    }
}

std::vector<Tensor> Shards::owned() const {
    std::vector<Tensor> mine;
    for (const auto& bucket : buckets_) {
        if (bucket.owner != processes_.rank()) continue;
        for (const auto& part : bucket.parts) mine.push_back(part.parameter);
    }
    return mine;
}

std::optional<int> Shards::owner_of(const Tensor& parameter) const {
    const auto holds = [&](const Bucket& bucket) {
        return std::any_of(bucket.parts.begin(), bucket.parts.end(),
                           [&](const auto& part) { return part.parameter.is_same(parameter); });
    };
    const auto bucket = std::find_if(buckets_.begin(), buckets_.end(), holds);
    return bucket == buckets_.end() ? std::nullopt : std::optional(bucket->owner);
}

void Shards::clear_gradients() {
    for (auto& bucket : buckets_) bucket.numbers.zero_();
}

void Shards::send_when_complete() {
    sending_ = processes_.size() > 1;
    for (auto& bucket : buckets_) {
        for (auto& part : bucket.parts) part.complete = false;
    }
}

void Shards::send_complete_buckets() {
    while (sent_ < buckets_.size() && buckets_[sent_].complete()) buckets_[sent_++].begin_sum(processes_);
}

void Shards::collect() {
    if (processes_.size() == 1) return;
    sending_ = false;
    while (sent_ < buckets_.size()) buckets_[sent_++].begin_sum(processes_);
    for (auto& bucket : buckets_) bucket.wait();
    sent_ = 0;
}

void Shards::distribute() {
    if (processes_.size() == 1) return;
    const torch::NoGradGuard no_gradients;
    for (auto& bucket : buckets_) bucket.begin_broadcast(processes_);
    for (auto& bucket : buckets_) {
        bucket.wait();
        for (const auto& part : bucket.parts) part.parameter.copy_(part.numbers);
    }
}

Tensor Shards::from_owner(const Tensor& parameter, const Tensor& numbers) const {
    const auto owner = owner_of(parameter);
    core::invariant(owner.has_value(), "a parameter lies in a bucket");
    const auto sent = owner == processes_.rank() ? numbers.to(torch::kCPU).contiguous()
                                                 : torch::empty(parameter.sizes(), parameter.scalar_type());
    processes_.begin_broadcast(*owner, numbers_of(sent))->wait();
    return sent;
}

}  // namespace mha2mla::finetune
