#include "run_program.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "core/file.h"

namespace mha2mla::tests {
namespace fs = std::filesystem;
namespace {

/// Open MPI (4, 5) asks for a word on processes of root and on more of them than cores.
void allow_processes() {
    for (const char* name :
         {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"}) {
        ::setenv(name, "1", 1);
    }
    ::setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 1);
}

void apply(const RunOptions& options) {
    for (const auto& setting : options.environment) {
        const auto equals = setting.find('=');
        ::setenv(setting.substr(0, equals).c_str(), setting.substr(equals + 1).c_str(), 1);
    }
    if (options.processes > 1) allow_processes();
    if (!options.largest_file_bytes) return;
    const rlimit limit{*options.largest_file_bytes, *options.largest_file_bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);  // the write fails instead
}

[[noreturn]] void become(const std::vector<std::string>& arguments, const RunOptions& options,
                         const TemporaryDirectory& output) {
    const int out = ::open((output / "out").c_str(), O_WRONLY | O_CREAT, 0600);
    const int err = ::open((output / "err").c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    apply(options);
    std::vector<std::string> command;
    if (options.processes > 1) command = {MHA2MLA_MPIRUN, "-n", std::to_string(options.processes)};
    command.emplace_back(MHA2MLA_PROGRAM);
    command.insert(command.end(), arguments.begin(), arguments.end());
    std::vector<char*> words;
    for (auto& word : command) words.push_back(word.data());
    words.push_back(nullptr);
    ::execv(words.front(), words.data());
    ::_exit(127);
}

Outcome wait_for(pid_t child, const TemporaryDirectory& output) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            .out = core::read_text(output / "out"),
            .err = core::read_text(output / "err")};
}

bool holds_partial_entry(const fs::path& directory) {
    for (const auto& entry : fs::directory_iterator(directory)) {
        if (entry.path().filename().string().find(".partial-") != std::string::npos) return true;
    }
    return false;
}

}  // namespace

core::Json Outcome::json() const {
    EXPECT_EQ(exit_code, 0) << err;
    return core::parse_json(out, "standard output");
}

Outcome run(const std::vector<std::string>& arguments, const RunOptions& options) {
    const TemporaryDirectory output;
    const pid_t child = ::fork();
    if (child == 0) become(arguments, options, output);
    return wait_for(child, output);
}

Outcome run_and_signal(const std::vector<std::string>& arguments, int signal, const std::function<bool()>& when) {
    const TemporaryDirectory output;
    const pid_t child = ::fork();
    if (child == 0) become(arguments, {}, output);
    for (int patience = 0; patience < 60'000 && !when(); ++patience) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ::kill(child, signal);
    return wait_for(child, output);
}

Outcome run_and_interrupt(const std::vector<std::string>& arguments, const fs::path& watched) {
    return run_and_signal(arguments, SIGINT, [&] { return holds_partial_entry(watched); });
}

bool has_mpi() { return !std::string(MHA2MLA_MPIRUN).empty(); }

std::string fixture_model(const std::string& name) { return std::string(MHA2MLA_FIXTURES) + "/models/" + name; }

std::optional<std::string> default_model() {
    const char* path = std::getenv("MHA2MLA_MODEL");
    if (path == nullptr || !fs::exists(path)) return std::nullopt;
    return path;
}

std::optional<std::string> shared_file(const std::string& name) {
    const char* data = std::getenv("MHA2MLA_DATA");
    const fs::path path = fs::path(data != nullptr ? data : MHA2MLA_SHARED_DATA) / name;
    if (!fs::exists(path)) return std::nullopt;
    return path.string();
}

TemporaryDirectory::TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "mha2mla-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary directory");
    path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

}  // namespace mha2mla::tests
