#include "cli/session.h"

#include <fmt/format.h>
#include <iostream>
#include <unistd.h>

#include "core/error.h"

namespace mha2mla::cli {

void Session::add_options(CLI::App& verb) {
    verb.add_flag("--json", options_.json, "Print one JSON value on stdout and nothing else");
    verb.add_option("--threads", options_.threads, "Threads; 0 = one per core")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    verb.add_option("--seed", options_.seed, "Seed of everything random")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    verb.add_option("--log-level", options_.log_level, "quiet or info")
        ->check(CLI::IsMember({"quiet", "info"}))
        ->capture_default_str();
}

core::ThreadPool& Session::pool() {
    if (!pool_) pool_ = std::make_unique<core::ThreadPool>(options_.threads);
    return *pool_;
}

core::Progress& Session::progress() {
    if (progress_) return *progress_;
    if (options_.log_level == "quiet") {
        progress_ = std::make_unique<core::Progress>();
    } else {
        progress_ = std::make_unique<core::ProgressBar>(std::cerr, ::isatty(STDERR_FILENO) == 1);
    }
    return *progress_;
}

void Session::note(const std::string& text) const {
    if (options_.log_level != "quiet") std::cerr << text << std::endl;
}

void Session::print(const core::OrderedJson& object, const std::string& text) const {
    write_out(options_.json ? object.dump(2, ' ', false, core::OrderedJson::error_handler_t::replace) + "\n" : text);
}

void write_out(const std::string& text) {
    std::cout << text << std::flush;
    if (std::cout) return;
    throw core::Error({.what = "cannot write to standard output",
                       .remedy = "see that its disk has space and its reader is still there"});
}

CLI::App* add_verb(CLI::App& program, Session& session, const std::string& name, const std::string& description,
                   const std::string& examples) {
    CLI::App* verb = program.add_subcommand(name, description);
    verb->footer("Examples:\n" + examples);
    session.add_options(*verb);
    return verb;
}

}  // namespace mha2mla::cli
