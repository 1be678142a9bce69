#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "core/file.h"
#include "core/json.h"

namespace mha2mla::eval {

/// The results of a benchmark's requests, a line each, written as they come: a run that was killed goes on behind the
/// last whole line. The first line says what was run.
class ResultsFile {
public:
    /// Nothing is kept: no file.
    ResultsFile() = default;
    /// Goes on with a file that is there. `run` is what a result depends on (model, task, options): a file of another
    /// run is an Error, and so is a damaged one, or one that another process writes to.
    ResultsFile(std::filesystem::path path, const core::Json& run);

    /// The result of a request that an earlier run or this one finished; null where there is none.
    const core::Json* find(const std::string& id) const;
    /// What errors call a result: the file and the request.
    std::string where(const std::string& id) const;
    /// Throws Error where it cannot be written.
    void add(const std::string& id, core::Json result);
    std::size_t size() const { return results_.size(); }

private:
    void read(const core::Json& run);
    void read_lines(const std::string& text, const core::Json& run);

    std::filesystem::path path_;
    std::map<std::string, core::Json> results_;
    std::optional<core::FileLock> lock_;
    std::ofstream stream_;
};

}  // namespace mha2mla::eval
