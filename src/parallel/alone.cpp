#include "parallel/communicator.h"

namespace mha2mla::parallel {
namespace {

class Alone : public Communicator {
public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void sum(std::span<double>) const override {}
    std::unique_ptr<Exchange> begin_sum_at(int, Numbers) const override { return std::make_unique<Finished>(); }
    std::unique_ptr<Exchange> begin_broadcast(int, Numbers) const override { return std::make_unique<Finished>(); }
};

}  // namespace

const Communicator& alone() {
    static const Alone process;
    return process;
}

}  // namespace mha2mla::parallel
