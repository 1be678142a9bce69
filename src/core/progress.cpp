#include "core/progress.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/error.h"

namespace mha2mla::core {
namespace {

constexpr std::chrono::milliseconds redraw_interval(100);
constexpr std::chrono::milliseconds line_interval(60'000);
constexpr int bar_width = 24;

}  // namespace

ProgressBar::ProgressBar(std::ostream& stream, bool is_terminal, std::chrono::milliseconds patience)
    : stream_(stream), is_terminal_(is_terminal), patience_(patience) {}

void ProgressBar::begin(const std::string& task, std::int64_t total) {
    task_ = task;
    total_ = std::max<std::int64_t>(total, 1);
    next_tenth_ = 1;
    started_ = Clock::now();
    drawn_ = {};
}

void ProgressBar::update(std::int64_t done, const std::string& note) {
    if (Clock::now() - started_ < patience_) return;
    const bool is_tenth = done * 10 >= next_tenth_ * total_;
    const auto interval = is_terminal_ ? redraw_interval : line_interval;
    const bool is_last = is_terminal_ && done >= total_;
    if (Clock::now() - drawn_ < interval && !is_last && !(is_tenth && !is_terminal_)) return;
    next_tenth_ = done * 10 / total_ + 1;
    draw(done, note);
}

void ProgressBar::end() {
    if (is_terminal_) stream_ << "\r\x1b[K" << std::flush;
}

void ProgressBar::draw(std::int64_t done, const std::string& note) {
    drawn_ = Clock::now();
    const double elapsed = std::chrono::duration<double>(drawn_ - started_).count();
    const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    const std::string left = share > 0 ? format_duration(elapsed / share - elapsed) + " left" : "";
    const int filled = static_cast<int>(share * bar_width);
    const std::string bar = std::string(static_cast<std::size_t>(filled), '#') +
                            std::string(static_cast<std::size_t>(bar_width - filled), '.');
    const std::string line = fmt::format("{} [{}] {}/{} {} {}", task_, bar, done, total_, left, note);
    stream_ << (is_terminal_ ? "\r\x1b[K" : "") << line << (is_terminal_ ? "" : "\n") << std::flush;
}

std::string format_duration(double seconds) {
    const auto whole = static_cast<std::int64_t>(seconds + 0.5);
    if (whole < 60) return fmt::format("{} s", whole);
    if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
    return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

void throw_if_stopped(const std::stop_token& stop) {
    if (stop.stop_requested()) throw Cancelled();
}

}  // namespace mha2mla::core
