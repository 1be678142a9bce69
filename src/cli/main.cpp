#include <exception>
#include <fmt/format.h>
#include <iostream>

#include "cli/session.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "cli/workshop.h"
#include "core/error.h"

namespace mha2mla::cli {
namespace {

enum ExitCode { success = 0, failure = 1, usage = 2, interrupted = 130 };

/// The program by its name, not by its place on this machine.
std::string command_line(int argc, char** argv) {
    std::string line = "mha2mla";
    for (int i = 1; i < argc; ++i) line += std::string(" ") + argv[i];
    return line;
}

int run(int argc, char** argv) {
    const StopOnSignal signals;
    Session session(signals.token(), command_line(argc, argv));
    CLI::App program(
        "Turns a pre-trained MHA/GQA language model into one with multi-head latent attention (MLA), and runs it\n"
        "from the small latent cache. MODEL is a directory (Hugging Face layout) or a GGUF file.");
    program.require_subcommand(1);
    program.set_version_flag("--version", version_text());
    program.footer("mha2mla VERB --help describes a verb and shows examples.");
    add_inspect(program, session);
    add_calibrate(program, session);
    add_convert(program, session);
    add_finetune(program, session);
    add_generate(program, session);
    add_eval(program, session);
    add_tokenize(program, session);
    add_bench(program, session);
    add_pack(program, session);
    try {
        program.parse(argc, argv);
        return success;
    } catch (const CLI::ParseError& error) {
        return program.exit(error) == 0 ? success : usage;
    } catch (const core::Cancelled&) {
        std::cerr << "\nmha2mla: stopped" << std::endl;
        return interrupted;
    }
}

}  // namespace
}  // namespace mha2mla::cli

int main(int argc, char** argv) {
    try {
        mha2mla::cli::hand_over_to_workshop(argv);
        return mha2mla::cli::run(argc, argv);
    } catch (const mha2mla::core::Error& error) {
        std::cerr << "mha2mla: " << error.what() << std::endl;
    } catch (const std::bad_alloc&) {
        std::cerr << "mha2mla: out of memory; close other programs, or work with less at a time (--context, --memory)"
                  << std::endl;
    } catch (const std::exception& error) {
        std::cerr << "mha2mla: internal error, please report it: " << error.what() << std::endl;
    }
    return 1;
}
