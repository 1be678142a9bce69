#pragma once

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace mha2mla::tests {

/// What a run of the program left behind.
struct Outcome {
    int exit_code = -1;
    std::string out;
    std::string err;

    core::Json json() const;  ///< stdout parsed; fails the test where it is anything but one JSON value
};

struct RunOptions {
    std::vector<std::string> environment;           ///< "NAME=value"
    std::optional<std::size_t> largest_file_bytes;  ///< writes beyond it fail, as on a full disk
    int processes = 1;                              ///< more: as `mpirun -n N mha2mla ARGUMENTS`
};

/// Runs `mha2mla ARGUMENTS` and waits for it.
Outcome run(const std::vector<std::string>& arguments, const RunOptions& options = {});

/// The same, but sends a signal once `when` says so, or after a minute.
Outcome run_and_signal(const std::vector<std::string>& arguments, int signal, const std::function<bool()>& when);

/// The same with SIGINT once an entry whose name holds ".partial-" shows up in `watched`.
Outcome run_and_interrupt(const std::vector<std::string>& arguments, const std::filesystem::path& watched);

/// Whether several processes can be run.
bool has_mpi();

/// tests/fixtures/models/NAME
std::string fixture_model(const std::string& name);
/// The default model (environment variable MHA2MLA_MODEL), where there is one.
std::optional<std::string> default_model();
/// A file of the shared data (environment variable MHA2MLA_DATA), where it is present.
std::optional<std::string> shared_file(const std::string& name);

/// An empty directory that lasts as long as the object.
class TemporaryDirectory {
public:
    TemporaryDirectory();
    ~TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    std::string operator/(const std::string& name) const { return (path_ / name).string(); }
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

}  // namespace mha2mla::tests
