#include <fmt/format.h>
#include <memory>
#include <numeric>

#include "calibrate/calibration.h"
#include "checkpoint/writer.h"
#include "cli/session.h"
#include "cli/workshop/calibration_text.h"
#include "cli/workshop/shared_run.h"
#include "cli/world.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/progress.h"
#include "model/options.h"

namespace mha2mla::cli {
namespace {

struct CalibrateCommand {
    std::string source;
    CalibrationTextOptions text;
    calibrate::CalibrationOptions calibration;
    std::string device = "cpu";
};

void print_report(const calibrate::TokensRecord& text, const std::vector<double>& layer_seconds,
                  const CalibrateCommand& command, const Session& session) {
    const double seconds = std::accumulate(layer_seconds.begin(), layer_seconds.end(), 0.0);
    const std::size_t peak = core::peak_memory_bytes();
    session.print({{"text", {{"origin", text.origin}, {"windows", text.windows}, {"tokens", text.tokens}}},
                   {"seconds", seconds},
                   {"layer_seconds", layer_seconds},
                   {"peak_memory_bytes", peak}},
                  fmt::format("{}: statistics of {} layers from {} tokens of {} ({}, at most {:.2f} GB of memory)\n",
                              command.calibration.statistics.string(), layer_seconds.size(), text.tokens, text.origin,
                              core::format_duration(seconds), static_cast<double>(peak) / 1e9));
}

void calibrate_model(CalibrateCommand& command, Session& session) {
    auto& options = command.calibration;
    if (!options.moments.centred_keys && options.moments.sinks > 0) {
        throw core::Error({.what = "no conversion has exact tokens without the mean key",
                           .expected = "--sinks 0 with --no-mean-key",
                           .got = std::to_string(options.moments.sinks),
                           .where = "--sinks"});
    }
    const auto source = checkpoint::Checkpoint::open(command.source);
    if (source.config().is_mla()) {
        throw core::Error({.what = "the model is already converted",
                           .expected = "a model with multi-head or grouped-query attention",
                           .got = "multi-head latent attention",
                           .where = command.source});
    }
    model::use_threads(session.options().threads);
    options.device = model::parse_device(command.device);
    checkpoint::check_target(options.statistics, false);
    options.rest.spill_directory = core::absolute_target(options.statistics).parent_path();
    const auto& processes = world();
    options.processes = &processes;
    if (processes.rank() > 0) session.silence();
    command.text.shortest_window = calibrate::shortest_window(options.moments);
    command.text.memory_bytes = options.rest.memory_bytes;
    auto text = calibration_text(source, command.text, options.statistics, session, processes);
    if (text.held_out.empty()) calibrate::hold_out(text);
    calibrate::Calibration calibration(source, text, options);
    const auto seconds = calibration.run(session.progress(), session.stop());
    if (processes.rank() == 0) print_report(calibrate::record_of(text), seconds, command, session);
}

}  // namespace

void add_calibrate(CLI::App& program, Session& session) {
    auto command = std::make_shared<CalibrateCommand>();
    CLI::App* verb = add_verb(program, session, "calibrate", "Measure what conversions of a model need to know",
                              "  mha2mla calibrate model.gguf statistics\n"
                              "  mha2mla calibrate llama/ statistics --calibration books.txt,code.jsonl --memory 2G\n"
                              "  mha2mla convert llama/ converted --statistics statistics --cache-ratio 0.25\n"
                              "  mpirun -n 4 mha2mla calibrate llama/ statistics    (built where MPI is installed)");
    verb->add_option("MODEL", command->source, "Source: directory or GGUF file")->required();
    verb->add_option("DIRECTORY", command->calibration.statistics, "Directory to write, for convert --statistics")
        ->required();
    add_calibration_options(*verb, command->text);
    add_memory_option(*verb, command->calibration.rest.memory_bytes);
    verb->add_option("--sinks", command->calibration.moments.sinks, "First tokens that stay exact, as in convert")
        ->check(CLI::Range(0, 64))
        ->capture_default_str();
    verb->add_flag(
        "--mean-key,!--no-mean-key", command->calibration.moments.centred_keys,
        "The keys' mean keeps its RoPE, as in convert; --export-shape deepseek needs --no-mean-key and --sinks 0");
    verb->add_option("--device", command->device, "Where to compute, as LibTorch spells it")->capture_default_str();
    verb->callback([command, &session] {
        run_shared([&] { calibrate_model(*command, session); },
                   [&] { note_interruption(command->calibration.statistics, session); });
    });
}

}  // namespace mha2mla::cli
