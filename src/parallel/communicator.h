#pragma once

#include <cstddef>
#include <span>

namespace mha2mla::parallel {

/// The processes that share one task. Every process makes the same calls in the same order.
class Communicator {
public:
    virtual ~Communicator() = default;
    /// This process, 0..size-1; the first one prints and writes.
    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// Adds up each element over all processes, in place; every process gets the same bits.
    virtual void sum(std::span<double> values) const = 0;
};

/// One process.
const Communicator& alone();

/// The items 0..count-1 that fall to this process: rank, rank + size, ...
template <typename Function>
void for_each_share(const Communicator& processes, std::size_t count, Function function) {
    for (auto i = static_cast<std::size_t>(processes.rank()); i < count;
         i += static_cast<std::size_t>(processes.size())) {
        function(i);
    }
}

}  // namespace mha2mla::parallel
