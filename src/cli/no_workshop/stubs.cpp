#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "cli/session.h"
#include "cli/workshop.h"
#include "core/error.h"

namespace mha2mla::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> runtime_verbs{"inspect", "generate", "eval", "tokenize", "bench", "pack"};

bool asks_for_workshop_engine(const std::vector<std::string_view>& arguments) {
    const auto engine = std::find(arguments.begin(), arguments.end(), "--engine");
    if (engine != arguments.end() && engine + 1 != arguments.end()) return engine[1] == "workshop";
    return std::find(arguments.begin(), arguments.end(), "--engine=workshop") != arguments.end();
}

/// The general help and the version are the workshop's: it knows all verbs.
bool runs_here(const std::vector<std::string_view>& arguments) {
    if (arguments.empty()) return false;
    const bool ours = std::find(runtime_verbs.begin(), runtime_verbs.end(), arguments.front()) != runtime_verbs.end();
    return ours && !asks_for_workshop_engine(arguments);
}

/// mpirun and its like tell the processes that they start about each other.
bool is_one_of_several() {
    constexpr std::array variables{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    return std::any_of(variables.begin(), variables.end(),
                       [](const char* name) { return std::getenv(name) != nullptr; });
}

/// LibTorch's tensors come from malloc, and large pages make fine-tuning a fifth faster (docs/results). glibc reads
/// this when a program starts; what the user says stays.
void ask_for_large_pages() {
    constexpr int keep = 0;
    ::setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", keep);
}

[[noreturn]] void refuse(const std::string& what) {
    throw core::Error({.what = what + " needs the workshop, which this build leaves out",
                       .expected = "mha2mla-workshop beside this program",
                       .remedy = "build without --runtime-only (-DMHA2MLA_WORKSHOP=ON)"});
}

void add_missing(CLI::App& program, Session& session, const std::string& name) {
    CLI::App* verb = add_verb(program, session, name, "Not in this build", "  needs a build with the workshop");
    verb->allow_extras();
    verb->callback([name] { refuse(name); });
}

}  // namespace

bool has_workshop() { return false; }

void hand_over_to_workshop(char** arguments) {
    std::vector<std::string_view> words;
    for (char** word = arguments + 1; *word != nullptr; ++word) words.emplace_back(*word);
    std::error_code unreadable;
    const auto directory = fs::read_symlink("/proc/self/exe", unreadable).parent_path();
    if (unreadable || runs_here(words)) return;
    const bool together = is_one_of_several();
    const fs::path workshop = directory / (together ? "mha2mla-mpi" : "mha2mla-workshop");
    ask_for_large_pages();
    ::execv(workshop.c_str(), arguments);
    if (!together) return;
    throw core::Error({.what = "several processes cannot work together in this build",
                       .expected = "mha2mla-mpi beside this program",
                       .remedy = "install MPI (Debian: libopenmpi-dev openmpi-bin) and build again"});
}

eval::WindowScorer module_scorer(const checkpoint::Checkpoint&, const ModuleOptions&) {
    refuse("eval --engine workshop");
}

void add_calibrate(CLI::App& program, Session& session) { add_missing(program, session, "calibrate"); }

void add_convert(CLI::App& program, Session& session) { add_missing(program, session, "convert"); }

void add_finetune(CLI::App& program, Session& session) { add_missing(program, session, "finetune"); }

}  // namespace mha2mla::cli
