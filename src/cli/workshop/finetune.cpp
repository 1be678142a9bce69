#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>

#include "checkpoint/checkpoint.h"
#include "cli/choice.h"
#include "cli/model_options.h"
#include "cli/session.h"
#include "cli/version.h"
#include "cli/workshop/calibration_text.h"
#include "cli/workshop/native_states.h"
#include "cli/workshop/shared_run.h"
#include "cli/workshop/training_text.h"
#include "cli/world.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"
#include "finetune/recovery.h"
#include "model/large_blocks.h"
#include "model/options.h"

namespace mha2mla::cli {
namespace {

struct FinetuneCommand {
    std::string converted;
    std::string teacher;
    TrainingTextOptions text;
    std::string objective = "layerwise:1,distill:3";
    std::string kv_format;
    double save_minutes = 10;
    finetune::RecoveryRequest request;
};

std::string report_text(const finetune::RecoveryReport& report, const FinetuneCommand& command) {
    return fmt::format(
        "{}: {} tokens in {} steps ({}, at most {:.2f} GB of memory)\n"
        "perplexity of {} held-out windows: {:.3f} before, {:.3f} after, {:.3f} of the source\n",
        command.request.target.string(), report.tokens, report.steps, core::format_duration(report.seconds),
        static_cast<double>(report.peak_memory_bytes) / 1e9, command.request.options.held_out, report.perplexity_before,
        report.perplexity_after, report.source_perplexity);
}

void finetune_model(FinetuneCommand& command, Session& session) {
    auto& request = command.request;
    auto& options = request.options;
    const auto& processes = world();
    request.processes = &processes;
    if (processes.rank() > 0) session.silence();
    options.stages = finetune::parse_stages(command.objective);
    if (!command.kv_format.empty()) options.kv_format = cache::parse_cache_format(command.kv_format, "--kv-format");
    options.seed = session.options().seed;
    request.save_every = std::chrono::duration<double>(60 * command.save_minutes);
    request.version = version();
    request.command = session.command();
    request.note = [&session](const std::string& text) { session.note("\n" + text); };
    const auto converted = checkpoint::Checkpoint::open(command.converted);
    const auto source = checkpoint::Checkpoint::open(command.teacher);
    request.source_states = [&source, &options, &session] { return native_states(source, options.window, session); };
    finetune::check_request({converted, source}, request);
    parallel::meet(processes);  // none begins to write before all have looked
    model::use_threads(session.options().threads);
    const auto text = training_text(source, command.text, request, session);
    core::keep_freed_memory();
    model::keep_large_blocks();
    const auto report = finetune::recover({converted, source}, text, request, session.progress(), session.stop());
    if (processes.rank() == 0) session.print(report.to_json(), report_text(report, command));
}

void add_objective_options(CLI::App& verb, FinetuneCommand& command) {
    auto& options = command.request.options;
    verb.add_option("--tokens", options.tokens, "How many tokens to learn from, all stages together")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 50))
        ->required();
    verb.add_option("--objective", command.objective,
                    "Stages with their shares of the tokens: layerwise, distill, cross-entropy")
        ->capture_default_str()
        ->type_name("STAGES");
    verb.add_option("--train", options.trained, "Which weights learn: attention (default), latent or all")
        ->transform(choice_of(finetune::trained_names))
        ->type_name("WEIGHTS");
    verb.add_option("--kv-format", command.kv_format, "Learn to run with this cache, as generate --kv-cache (int4-c)")
        ->type_name("FORMAT");
    verb.add_option("--temperature", options.temperature, "distill: of both distributions")
        ->check(CLI::Range(0.1, 100.0))
        ->capture_default_str();
    verb.add_option("--text-share", options.text_share, "distill: share of the text's own cross-entropy")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    verb.add_flag("--balance,!--no-balance", options.balance, "Balance the scales of latent channels while training");
}

void add_optimizer_options(CLI::App& verb, finetune::Options& options) {
    auto& schedule = options.schedule;
    verb.add_option("--learning-rate", schedule.learning_rate, "Of AdamW, after the warm-up")
        ->check(CLI::Range(1e-9, 1.0))
        ->capture_default_str();
    verb.add_option("--warmup", schedule.warmup, "Share of a stage's steps with a rising rate")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    verb.add_option("--decay", schedule.decay, "How the rate ends: 1-sqrt (default), cosine or none")
        ->transform(choice_of(finetune::decay_names))
        ->type_name("DECAY");
    verb.add_option("--cooldown", schedule.cooldown, "1-sqrt: share of the steps with a falling rate")
        ->check(CLI::Range(0.01, 1.0))
        ->capture_default_str();
    verb.add_option("--weight-decay", options.weight_decay, "Of AdamW")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    verb.add_option("--clip", options.clip, "Largest norm of a step's gradient")
        ->check(CLI::Range(1e-6, 1e6))
        ->capture_default_str();
    verb.add_option("--batch-tokens", options.batch_tokens, "Tokens of a step")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
        ->capture_default_str();
}

void add_machine_options(CLI::App& verb, FinetuneCommand& command) {
    auto& options = command.request.options;
    verb.add_option("--micro-batch", options.micro_batch, "Windows that pass through the model at once")
        ->check(CLI::Range(1, 1 << 16))
        ->capture_default_str();
    verb.add_flag("--recompute", options.recompute, "Less memory: compute layers again in the backward pass");
    verb.add_flag("--bf16", options.bf16,
                  "Products in bf16, learning weights in fp32: faster where the machine has them");
    verb.add_option("--device", options.device, "Where to compute, as LibTorch spells it")->capture_default_str();
    verb.add_option("--save-every", command.save_minutes, "Minutes between snapshots")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str();
    verb.add_flag("--resume", command.request.resume, "Go on with an unfinished run into OUT");
    add_dtype_option(verb, "--dtype", command.request.dtype, "Weights on disk");
    verb.add_flag("--force", command.request.replace, "Replace OUT where it exists");
}

void note_snapshot(const FinetuneCommand& command, const Session& session) {
    const auto partial = core::partial_path(command.request.target);
    if (!std::filesystem::exists(partial)) return;
    session.note(fmt::format("\nthe run is kept in {}: the same command with --resume goes on", partial.string()));
}

}  // namespace

void add_finetune(CLI::App& program, Session& session) {
    auto command = std::make_shared<FinetuneCommand>();
    CLI::App* verb =
        add_verb(program, session, "finetune", "Train a converted model to answer as its source again",
                 "  mha2mla finetune converted --teacher model.gguf --tokens 150000 --out recovered\n"
                 "  mha2mla finetune converted --teacher llama/ --text books.txt,code.jsonl --tokens 1000000 "
                 "--out recovered --kv-format int4-c\n"
                 "  mpirun -n 4 mha2mla finetune ...    (built where MPI is installed)");
    verb->add_option("MODEL", command->converted, "Converted model: directory")->required();
    verb->add_option("--teacher", command->teacher, "The model that it was converted from: directory or GGUF file")
        ->required();
    verb->add_option("--out", command->request.target, "Directory to write")->required();
    add_training_text_options(*verb, command->text, command->request.options);
    add_objective_options(*verb, *command);
    add_optimizer_options(*verb, command->request.options);
    add_machine_options(*verb, *command);
    verb->callback([command, &session] {
        run_shared([&] { finetune_model(*command, session); }, [&] { note_snapshot(*command, session); });
    });
}

}  // namespace mha2mla::cli
