#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "core/json.h"
#include "core/progress.h"
#include "core/thread_pool.h"

namespace mha2mla::cli {

/// Options that every verb takes.
struct CommonOptions {
    bool json = false;
    int threads = 0;  ///< 0: one per core
    std::uint64_t seed = 0;
    std::string log_level = "info";  ///< quiet, info
};

/// What a verb has at hand: the common options, where to print, and the stop request (Ctrl-C).
class Session {
public:
    Session(std::stop_token stop, std::string command) : stop_(std::move(stop)), command_(std::move(command)) {}

    void add_options(CLI::App& verb);
    const CommonOptions& options() const { return options_; }
    const std::stop_token& stop() const { return stop_; }
    /// What the user typed, for the record: "mha2mla convert a b".
    const std::string& command() const { return command_; }

    core::ThreadPool& pool();
    core::Progress& progress();
    /// A remark on stderr; silent with --log-level quiet.
    void note(const std::string& text) const;
    /// No progress and no remarks from now on, as with --log-level quiet.
    void silence() { options_.log_level = "quiet"; }
    /// The result on stdout: the object with --json, the text otherwise.
    void print(const core::OrderedJson& object, const std::string& text) const;

private:
    std::stop_token stop_;
    std::string command_;
    CommonOptions options_;
    std::unique_ptr<core::ThreadPool> pool_;
    std::unique_ptr<core::Progress> progress_;
};

/// Each adds one verb to the program; the verb runs when its name was given.
void add_inspect(CLI::App& program, Session& session);
void add_calibrate(CLI::App& program, Session& session);
void add_convert(CLI::App& program, Session& session);
void add_finetune(CLI::App& program, Session& session);
void add_generate(CLI::App& program, Session& session);
void add_eval(CLI::App& program, Session& session);
void add_tokenize(CLI::App& program, Session& session);
void add_bench(CLI::App& program, Session& session);
void add_pack(CLI::App& program, Session& session);

/// Text on stdout, at once. Throws Error where it cannot be written: a full disk, a closed pipe.
void write_out(const std::string& text);

/// A subcommand with the common options, MODEL as its first argument, and examples below its help.
CLI::App* add_verb(CLI::App& program, Session& session, const std::string& name, const std::string& description,
                   const std::string& examples);

}  // namespace mha2mla::cli
