#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <variant>

namespace mha2mla::parallel {

using Numbers = std::variant<std::span<float>, std::span<double>>;

/// What is under way between processes.
class Exchange {
public:
    virtual ~Exchange() = default;
    /// Returns once the numbers have arrived and may be used again.
    virtual void wait() = 0;
};

/// The processes that share one task. Every process makes the same calls in the same order.
class Communicator {
public:
    virtual ~Communicator() = default;
    /// This process, 0..size-1; the first one prints and writes.
    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// Adds up each element over all processes, in place; every process gets the same bits.
    virtual void sum(std::span<double> values) const = 0;
    /// Begins to add up each element over all processes, for the owner alone: what the others hold afterwards is
    /// anything. The numbers must stay where they are, and nobody may touch them, until the exchange was waited for.
    virtual std::unique_ptr<Exchange> begin_sum_at(int owner, Numbers values) const = 0;
    /// Begins to hand the owner's numbers to all, likewise.
    virtual std::unique_ptr<Exchange> begin_broadcast(int owner, Numbers values) const = 0;
};

/// What was over when it began.
struct Finished : Exchange {
    void wait() override {}
};

/// One process.
const Communicator& alone();

/// Returns once every process is here.
inline void meet(const Communicator& processes) {
    double nothing = 0;
    processes.sum({&nothing, 1});
}

/// The items 0..count-1 that fall to this process: rank, rank + size, ...
template <typename Function>
void for_each_share(const Communicator& processes, std::size_t count, Function function) {
    for (auto i = static_cast<std::size_t>(processes.rank()); i < count;
         i += static_cast<std::size_t>(processes.size())) {
        function(i);
    }
}

}  // namespace mha2mla::parallel
