#pragma once

#include <algorithm>
#include <barrier>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <thread>
#include <variant>
#include <vector>

#include "parallel/communicator.h"

namespace mha2mla::parallel::test {

/// Threads that stand for processes. Their exchanges are over when they begin, and where the numbers of a sum are
/// anything, they are NaN.
class Threads {
public:
    explicit Threads(int size) : meet_(size), parts_(static_cast<std::size_t>(size)) {}

    class Process : public Communicator {
    public:
        Process(Threads& all, int rank) : all_(all), rank_(rank) {}
        int rank() const override { return rank_; }
        int size() const override { return static_cast<int>(all_.parts_.size()); }
        void sum(std::span<double> values) const override {
            all_.parts_[static_cast<std::size_t>(rank_)].assign(values.begin(), values.end());
            all_.meet_.arrive_and_wait();
            std::fill(values.begin(), values.end(), 0.0);
            for (const auto& part : all_.parts_) {
                for (std::size_t i = 0; i < values.size(); ++i) values[i] += part[i];
            }
            all_.meet_.arrive_and_wait();
        }
        std::unique_ptr<Exchange> begin_sum_at(int owner, Numbers values) const override {
            const double others = rank_ == owner ? 0 : std::numeric_limits<double>::quiet_NaN();
            std::visit([&](auto numbers) { add_up(numbers, true, others); }, values);
            return std::make_unique<Finished>();
        }
        std::unique_ptr<Exchange> begin_broadcast(int owner, Numbers values) const override {
            std::visit([&](auto numbers) { add_up(numbers, rank_ == owner, 0); }, values);
            return std::make_unique<Finished>();
        }

    private:
        /// The sum of the numbers of those that give theirs, plus an offset.
        template <typename Number>
        void add_up(std::span<Number> numbers, bool gives, double offset) const {
            std::vector<double> values(numbers.size());
            if (gives) std::copy(numbers.begin(), numbers.end(), values.begin());
            sum(values);
            for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<Number>(values[i] + offset);
        }

        Threads& all_;
        int rank_;
    };

    /// Runs `work` as every process.
    void run(const std::function<void(const Process&)>& work) {
        std::vector<std::thread> threads;
        for (int rank = 0; rank < static_cast<int>(parts_.size()); ++rank) {
            threads.emplace_back([this, rank, &work] { work(Process(*this, rank)); });
        }
        for (auto& thread : threads) thread.join();
    }

private:
    std::barrier<> meet_;
    std::vector<std::vector<double>> parts_;
};

}  // namespace mha2mla::parallel::test
