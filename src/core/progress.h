#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <stop_token>
#include <string>

namespace mha2mla::core {

/// Where library code reports how far it is. `cli` passes in a ProgressBar; tests and servers pass a silent one.
class Progress {
public:
    virtual ~Progress() = default;
    /// Starts a task of `total` steps.
    virtual void begin(const std::string& task, std::int64_t total) { (void)task, (void)total; }
    /// Reports that `done` steps are complete; `note` is a short remark ("layer 3: 92 % kept").
    virtual void update(std::int64_t done, const std::string& note) { (void)done, (void)note; }
    virtual void end() {}
};

/// One line on a terminal, redrawn at most ten times a second: task, bar, done/total, remaining time, note.
/// Where the stream is no terminal it prints one line per tenth of the task instead.
class ProgressBar : public Progress {
public:
    /// Tasks shorter than `patience` show nothing.
    ProgressBar(std::ostream& stream, bool is_terminal, std::chrono::milliseconds patience = std::chrono::seconds(1));
    void begin(const std::string& task, std::int64_t total) override;
    void update(std::int64_t done, const std::string& note) override;
    void end() override;

private:
    using Clock = std::chrono::steady_clock;
    void draw(std::int64_t done, const std::string& note);

    std::ostream& stream_;
    bool is_terminal_;
    std::chrono::milliseconds patience_;
    std::string task_;
    std::int64_t total_ = 0;
    std::int64_t next_tenth_ = 0;
    Clock::time_point started_;
    Clock::time_point drawn_;
};

/// "3 s", "2 min 10 s", "1 h 5 min".
std::string format_duration(double seconds);

/// Throws Cancelled once a stop was requested. Long loops call it once a step.
void throw_if_stopped(const std::stop_token& stop);

}  // namespace mha2mla::core
