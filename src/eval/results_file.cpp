#include "eval/results_file.h"

#include <sstream>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace mha2mla::eval {
namespace {

std::string header_of(const core::Json& run) { return core::Json{{"run", run}}.dump(); }

constexpr const char* another_file = "name another file, or remove this one";

/// The fields of `run` that `other` has not, or has otherwise: what a message needs to say.
core::Json differing(const core::Json& run, const core::Json& other) {
    core::Json fields = core::Json::object();
    if (!run.is_object()) return run;
    for (const auto& [name, value] : run.items()) {
        if (!other.is_object() || !other.contains(name) || other[name] != value) fields[name] = value;
    }
    return fields;
}

}  // namespace

ResultsFile::ResultsFile(std::filesystem::path path, const core::Json& run) : path_(std::move(path)) {
    lock_.emplace(path_);
    std::error_code ignored;
    const bool goes_on = std::filesystem::file_size(path_, ignored) > 0 && !ignored;
    if (goes_on) read(run);
    stream_.open(path_, std::ios::app);
    if (stream_.tellp() == 0) stream_ << header_of(run) << std::endl;
    if (!stream_) throw core::Error({.what = "results cannot be written", .where = path_.string()});
}

void ResultsFile::read(const core::Json& run) {
    const std::string text = core::read_text(path_);
    const std::size_t whole = text.rfind('\n') + 1;  // npos + 1 is 0
    if (whole == 0 && !header_of(run).starts_with(text)) {
        throw core::Error({.what = "the file holds no results", .where = path_.string(), .remedy = another_file});
    }
    try {
        read_lines(text.substr(0, whole), run);
    } catch (const core::Error& error) {
        auto info = error.info();
        info.remedy = another_file;
        throw core::Error(info);
    }
    // An interruption may have torn the last line: it is cut off, now that the file is known to be ours.
    if (whole < text.size()) std::filesystem::resize_file(path_, whole);
}

void ResultsFile::read_lines(const std::string& text, const core::Json& run) {
    std::istringstream lines(text);
    std::size_t number = 0;
    for (std::string line; std::getline(lines, line);) {
        const std::string where = path_.string() + ", line " + std::to_string(++number);
        const auto json = core::parse_json(line, where);
        const core::JsonObject fields(json, where);
        if (number > 1) {
            results_[fields.string("id")] = fields.raw("result");
        } else if (const auto& theirs = fields.raw("run"); theirs != run) {
            throw core::Error({.what = "the file holds the results of another run",
                               .expected = differing(run, theirs).dump(),
                               .got = differing(theirs, run).dump(),
                               .where = path_.string()});
        }
    }
}

const core::Json* ResultsFile::find(const std::string& id) const {
    const auto found = results_.find(id);
    return found == results_.end() ? nullptr : &found->second;
}

std::string ResultsFile::where(const std::string& id) const {
    return path_.string() + ", the result of " + id + " (remove its line, and it is made anew)";
}

void ResultsFile::add(const std::string& id, core::Json result) {
    if (stream_.is_open()) {
        stream_ << core::Json{{"id", id}, {"result", result}}.dump() << std::endl;
        if (!stream_) throw core::Error({.what = "results cannot be written", .where = path_.string()});
    }
    results_[id] = std::move(result);
}

}  // namespace mha2mla::eval
