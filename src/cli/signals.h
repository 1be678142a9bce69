#pragma once

#include <stop_token>
#include <thread>

namespace mha2mla::cli {

/// Turns the first SIGINT or SIGTERM into a stop request; a second one ends the process at once. Create it before any
/// other thread: it blocks the signals for all of them and waits for them in a thread of its own.
class StopOnSignal {
public:
    StopOnSignal();
    ~StopOnSignal();
    StopOnSignal(const StopOnSignal&) = delete;
    StopOnSignal& operator=(const StopOnSignal&) = delete;

    std::stop_token token() const { return stop_.get_token(); }

private:
    void wait();

    std::stop_source stop_;
    std::thread waiter_;
};

}  // namespace mha2mla::cli
