#include "cli/signals.h"

#include <pthread.h>

#include <csignal>
#include <unistd.h>

namespace mha2mla::cli {
namespace {

constexpr int interrupted_exit_code = 130;
constexpr int wake_signal = SIGUSR1;  // ends the waiting thread when the program ends

sigset_t waited_signals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, wake_signal}) sigaddset(&signals, signal);
    return signals;
}

}  // namespace

StopOnSignal::StopOnSignal() {
    const sigset_t signals = waited_signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::signal(SIGPIPE, SIG_IGN);  // a closed pipe shows as a failed write
    waiter_ = std::thread([this] { wait(); });
}

StopOnSignal::~StopOnSignal() {
    pthread_kill(waiter_.native_handle(), wake_signal);
    waiter_.join();
}

void StopOnSignal::wait() {
    const sigset_t signals = waited_signals();
    int signal = 0;
    while (sigwait(&signals, &signal) == 0 && signal != wake_signal) {
        if (!stop_.request_stop()) ::_exit(interrupted_exit_code);
    }
}

}  // namespace mha2mla::cli
