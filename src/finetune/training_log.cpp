#include "finetune/training_log.h"

#include <algorithm>
#include <array>
#include <climits>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace mha2mla::finetune {
namespace {

core::OrderedJson to_json(const LogEntry& entry) {
    return {{"objective", name_of(entry.objective)},
            {"step", entry.step},
            {"tokens", entry.tokens},
            {"loss", entry.loss},
            {"gradient_norm", entry.gradient_norm},
            {"learning_rate", entry.learning_rate},
            {"seconds", entry.seconds}};
}

LogEntry parse_entry(const std::string& line, const std::string& where) {
    const auto json = core::parse_json(line, where);
    const core::JsonObject fields(json, where);
    return {.objective = parse_stages(fields.string("objective")).front().objective,
            .step = fields.integer("step", 0, INT64_MAX),
            .tokens = fields.integer("tokens", 0, INT64_MAX),
            .loss = fields.number("loss"),
            .gradient_norm = fields.number("gradient_norm"),
            .learning_rate = fields.number("learning_rate"),
            .seconds = fields.number("seconds")};
}

std::vector<LogEntry> read_entries(const std::filesystem::path& path, std::int64_t steps) {
    std::vector<LogEntry> entries;
    if (steps == 0) return entries;
    std::istringstream lines(core::read_text(path));
    for (std::string line; std::ssize(entries) < steps && std::getline(lines, line);) {
        entries.push_back(parse_entry(line, path.string()));
    }
    if (std::ssize(entries) == steps) return entries;
    throw core::Error({.what = "the log of the run is cut off",
                       .expected = std::to_string(steps) + " steps",
                       .got = std::to_string(entries.size()),
                       .where = path.string()});
}

/// Of a number of the last entries.
double recent_median(const std::vector<LogEntry>& entries, double LogEntry::*number) {
    std::array<double, recent_steps> recent;
    std::transform(entries.end() - recent_steps, entries.end(), recent.begin(),
                   [number](const LogEntry& entry) { return entry.*number; });
    const auto middle = recent.begin() + recent_steps / 2;
    std::nth_element(recent.begin(), middle, recent.end());
    return *middle;
}

}  // namespace

bool is_spike(const std::vector<LogEntry>& entries, Objective objective, double loss, double gradient_norm) {
    constexpr double far = 4;
    if (entries.size() < recent_steps) return false;
    const bool same = std::all_of(entries.end() - recent_steps, entries.end(),
                                  [objective](const LogEntry& entry) { return entry.objective == objective; });
    if (!same) return false;
    return loss > far * recent_median(entries, &LogEntry::loss) &&
           gradient_norm > far * recent_median(entries, &LogEntry::gradient_norm);
}

TrainingLog::TrainingLog(std::filesystem::path path, std::int64_t steps, bool writes)
    : path_(std::move(path)), entries_(read_entries(path_, steps)) {
    if (!writes) return;
    const auto rewritten = std::filesystem::path(path_.string() + ".new");
    stream_.open(rewritten, std::ios::trunc);
    for (const auto& entry : entries_) stream_ << to_json(entry).dump() << '\n';
    stream_.flush();
    if (!stream_) throw core::Error({.what = "the log cannot be written", .where = rewritten.string()});
    std::filesystem::rename(rewritten, path_);
}

void TrainingLog::add(const LogEntry& entry) {
    entries_.push_back(entry);
    if (!stream_.is_open()) return;
    stream_ << to_json(entry).dump() << std::endl;
    if (!stream_) throw core::Error({.what = "the log cannot be written", .where = path_.string()});
}

void TrainingLog::sync() const {
    if (stream_.is_open()) core::sync_to_disk(path_);
}

}  // namespace mha2mla::finetune
