#include "cli/world.h"

#include <mpi.h>

#include <algorithm>
#include <climits>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <variant>

#include "core/error.h"

namespace mha2mla::cli {
namespace {

void check(int status, const char* call) {
    if (status != MPI_SUCCESS) throw core::Error({.what = "processes cannot reach each other", .where = call});
}

/// Makes calls one after the other, in the order in which they were asked for, while the program computes. MPI sees no
/// other thread: most implementations move data only within calls, and some take them from one thread alone.
class CallThread {
public:
    CallThread() : thread_([this](const std::stop_token& stop) { serve(stop); }) {}

    std::future<void> post(std::function<void()> call) {
        std::packaged_task<void()> task(std::move(call));
        auto result = task.get_future();
        {
            const std::lock_guard lock(mutex_);
            tasks_.push_back(std::move(task));
        }
        posted_.notify_one();
        return result;
    }

private:
    void serve(const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (posted_.wait(lock, stop, [this] { return !tasks_.empty(); })) {
            auto task = std::move(tasks_.front());
            tasks_.pop_front();
            lock.unlock();
            task();
            lock.lock();
        }
    }

    std::mutex mutex_;
    std::condition_variable_any posted_;
    std::deque<std::packaged_task<void()>> tasks_;
    std::jthread thread_;
};

struct Buffer {
    void* data;
    int count;
    MPI_Datatype type;
};

Buffer buffer_of(parallel::Numbers values) {
    const auto count = std::visit([](auto numbers) { return numbers.size(); }, values);
    core::invariant(count <= INT_MAX, "MPI counts in int");
    if (const auto* numbers = std::get_if<std::span<float>>(&values)) {
        return {numbers->data(), static_cast<int>(count), MPI_FLOAT};
    }
    return {std::get<std::span<double>>(values).data(), static_cast<int>(count), MPI_DOUBLE};
}

void reduce(const Buffer& buffer, int owner, int rank) {
    const void* send = rank == owner ? MPI_IN_PLACE : buffer.data;
    void* receive = rank == owner ? buffer.data : nullptr;
    check(MPI_Reduce(send, receive, buffer.count, buffer.type, MPI_SUM, owner, MPI_COMM_WORLD), "MPI_Reduce");
}

void broadcast(const Buffer& buffer, int owner) {
    check(MPI_Bcast(buffer.data, buffer.count, buffer.type, owner, MPI_COMM_WORLD), "MPI_Bcast");
}

/// One that nobody waits for any more is of a program that ends (run_shared).
struct MpiExchange : parallel::Exchange {
    explicit MpiExchange(std::future<void> call) : call_(std::move(call)) {}
    void wait() override { call_.get(); }

    std::future<void> call_;
};

class MpiWorld : public parallel::Communicator {
public:
    MpiWorld() {
        constexpr int keep = 0;                               // what the user says
        ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", keep);  // Open MPI: who waits leaves the core to who computes
        calls_.post([this] { begin(); }).get();
    }
    ~MpiWorld() override {
        calls_.post([] { MPI_Finalize(); }).wait();
    }
    MpiWorld(const MpiWorld&) = delete;
    MpiWorld& operator=(const MpiWorld&) = delete;

    int rank() const override { return rank_; }
    int size() const override { return size_; }
    /// In one place, then to all: an MPI_Allreduce may round differently from process to process.
    void sum(std::span<double> values) const override {
        constexpr std::size_t most = std::size_t{1} << 26;
        for (std::size_t begin = 0; begin < values.size(); begin += most) {
            const auto buffer = buffer_of(values.subspan(begin, std::min(most, values.size() - begin)));
            calls_
                .post([&] {
                    reduce(buffer, 0, rank_);
                    broadcast(buffer, 0);
                })
                .get();
        }
    }
    std::unique_ptr<parallel::Exchange> begin_sum_at(int owner, parallel::Numbers values) const override {
        return std::make_unique<MpiExchange>(
            calls_.post([buffer = buffer_of(values), owner, rank = rank_] { reduce(buffer, owner, rank); }));
    }
    std::unique_ptr<parallel::Exchange> begin_broadcast(int owner, parallel::Numbers values) const override {
        return std::make_unique<MpiExchange>(
            calls_.post([buffer = buffer_of(values), owner] { broadcast(buffer, owner); }));
    }

private:
    /// Another thread than the calls' own may end all processes (MPI_Abort), and nothing else.
    void begin() {
        int provided = 0;
        check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
        check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
        check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
    }

    mutable CallThread calls_;
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
