#include "cli/world.h"

#include <mpi.h>

#include <algorithm>
#include <cstddef>

#include "core/error.h"

namespace mha2mla::cli {
namespace {

void check(int status, const char* call) {
    if (status != MPI_SUCCESS) throw core::Error({.what = "processes cannot reach each other", .where = call});
}

class MpiWorld : public parallel::Communicator {
public:
    MpiWorld() {
        int provided = 0;  // other threads, such as the one that waits for signals, do not call MPI
        check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
        check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
        check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
    }
    ~MpiWorld() override { MPI_Finalize(); }
    MpiWorld(const MpiWorld&) = delete;
    MpiWorld& operator=(const MpiWorld&) = delete;

    int rank() const override { return rank_; }
    int size() const override { return size_; }
    /// In one place, then to all: an MPI_Allreduce may round differently from process to process.
    void sum(std::span<double> values) const override {
        constexpr std::size_t most = std::size_t{1} << 26;  // MPI counts in int
        for (std::size_t begin = 0; begin < values.size(); begin += most) {
            const auto part = values.subspan(begin, std::min(most, values.size() - begin));
            const int count = static_cast<int>(part.size());
            const void* send = rank_ == 0 ? MPI_IN_PLACE : part.data();
            void* receive = rank_ == 0 ? part.data() : nullptr;
            check(MPI_Reduce(send, receive, count, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD), "MPI_Reduce");
            check(MPI_Bcast(part.data(), count, MPI_DOUBLE, 0, MPI_COMM_WORLD), "MPI_Bcast");
        }
    }

private:
    int rank_ = 0;
    int size_ = 1;
};

}  // namespace

const parallel::Communicator& world() {
    static const MpiWorld processes;
    return processes;
}

void end_other_processes(int exit_code) {
    if (world().size() > 1) MPI_Abort(MPI_COMM_WORLD, exit_code);
}

}  // namespace mha2mla::cli
