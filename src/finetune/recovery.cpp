#include "finetune/recovery.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "checkpoint/copy.h"
#include "core/error.h"
#include "core/file.h"
#include "core/fingerprint.h"
#include "core/memory.h"
#include "finetune/latent_balance.h"
#include "finetune/trainer.h"

namespace mha2mla::finetune {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using Clock = std::chrono::steady_clock;

void add_windows(core::Fingerprint& fingerprint, const std::vector<std::vector<int>>& windows) {
    for (const auto& window : windows) {
        fingerprint.add(static_cast<std::uint64_t>(window.size()));
        fingerprint.add(std::as_bytes(std::span(window)));
    }
}

/// Whether something else than LibTorch runs the source.
bool runs_outside_of_libtorch(const RecoveryRequest& request) {
    return request.source_states && request.options.bf16 && torch::Device(request.options.device).is_cpu();
}

/// The weights of both models that a run begins with, its text and its options: what its result depends on.
std::string describe(model::CausalLm& student, model::CausalLm& source, const data::TextWindows& text,
                     const RecoveryRequest& request) {
    core::Fingerprint fingerprint;
    add_windows(fingerprint, text.windows);
    add_windows(fingerprint, text.held_out);
    for (auto* model : {&student, &source}) {
        for (const auto& parameter : (*model)->parameters()) {
            constexpr std::int64_t step = 61;  // every so many numbers, not all: models are large
            const auto some = parameter.detach().flatten().slice(0, 0, std::nullopt, step).to(torch::kCPU).contiguous();
            fingerprint.add(std::as_bytes(std::span(some.data_ptr<float>(), static_cast<std::size_t>(some.numel()))));
        }
    }
    return fmt::format("{} {}{}", fingerprint.hex(), to_json(request.options).dump(),
                       runs_outside_of_libtorch(request) ? " source outside of LibTorch" : "");
}

/// A scale that depends on a channel's neighbours must stay as the conversion made it.
bool may_balance(const Options& options) {
    if (!options.balance || !options.kv_format) return options.balance;
    const auto& latent = options.kv_format->content;
    return !latent.codes || latent.by_channel;
}

bool learns_from_text_alone(const Options& options) {
    return std::all_of(options.stages.begin(), options.stages.end(),
                       [](const Stage& stage) { return stage.objective == Objective::cross_entropy; });
}

model::CausalLm load_student(const Checkpoint& converted, const Options& options) {
    model::ModelOptions model;
    model.device = model::parse_device(options.device);
    model.emulated_cache = options.kv_format;
    model.recompute = options.recompute;
    return model::CausalLm(converted, model);
}

model::CausalLm load_source(const Checkpoint& source, const Options& options) {
    model::ModelOptions model;
    model.device = model::parse_device(options.device);
    model::CausalLm loaded(source, model);
    for (auto& parameter : loaded->parameters()) parameter.set_requires_grad(false);
    return loaded;
}

/// Null where only the text teaches. The source is let go of where it runs elsewhere, before it is loaded there.
std::unique_ptr<Teacher> teacher_of(model::CausalLm source, const RecoveryRequest& request) {
    if (learns_from_text_alone(request.options)) return nullptr;
    if (!runs_outside_of_libtorch(request)) return make_teacher(std::move(source), request.options.bf16);
    SourceNorms norms(source);
    source = nullptr;
    return make_teacher(std::move(norms), request.source_states());
}

/// The documents of the converted model that still hold of the trained one.
std::map<std::string, std::string> kept_documents(const Checkpoint& converted) {
    auto files = converted.tokenizer_files();
    for (const std::string name : {"conversion.json", "README.md"}) {
        const auto path = converted.path() / name;
        if (fs::exists(path)) files[name] = core::read_text(path);
    }
    files["config.json"] = checkpoint::config_to_json(converted.config(), converted.source_config()).dump(2) + "\n";
    return files;
}

std::string card_section(const RecoveryReport& report, const data::TextWindows& text) {
    return fmt::format(
        "\n## Recovered\n\n"
        "Fine-tuned with `mha2mla finetune` on {} tokens ({}): perplexity of held-out windows {:.2f} before, {:.2f}\n"
        "after, {:.2f} of the source. `finetune.json` holds options and command, `log.jsonl` every step, `loss.svg`\n"
        "their losses.\n",
        report.tokens, text.origin, report.perplexity_before, report.perplexity_after, report.source_perplexity);
}

core::OrderedJson record(const RecoveryReport& report, const data::TextWindows& text, const RecoveryRequest& request) {
    core::OrderedJson json = report.to_json();
    json["text"] = text.origin;
    json["options"] = to_json(request.options);
    json["version"] = request.version;
    json["command"] = request.command;
    return json;
}

/// One run, from the models in memory to the model on disk.
class Recovery {
public:
    Recovery(const Pair& models, const data::TextWindows& text, const RecoveryRequest& request)
        : converted_(models.converted),
          text_(text),
          request_(request),
          device_(request.options.device),
          source_(load_source(models.source, request.options)),
          models_{.student = load_student(models.converted, request.options), .teacher = nullptr} {}

    void train(core::Progress& progress, const std::stop_token& stop);
    void write();
    RecoveryReport& report() { return report_; }

private:
    void round_to_disk();
    double perplexity(model::CausalLm& model, const char* task, core::Progress& progress, const std::stop_token& stop);

    const Checkpoint& converted_;
    const data::TextWindows& text_;
    const RecoveryRequest& request_;
    torch::Device device_;
    model::CausalLm source_;  // until the teacher has what it needs of it
    Models models_;
    std::optional<Trainer> trainer_;
    RecoveryReport report_;
};

void Recovery::train(core::Progress& progress, const std::stop_token& stop) {
    const auto& options = request_.options;
    report_.source_perplexity = perplexity(source_, "perplexity of the source", progress, stop);
    report_.perplexity_before = perplexity(models_.student, "perplexity before", progress, stop);
    const LatentBalance balance(models_.student, source_, converted_.config());
    const auto description = describe(models_.student, source_, text_, request_);
    models_.teacher = teacher_of(std::exchange(source_, nullptr), request_);
    if (may_balance(options)) balance.apply();
    trainer_.emplace(models_, text_.windows, options,
                     TrainerSetup{.directory = core::partial_path(request_.target),
                                  .request = description,
                                  .save_every = request_.save_every,
                                  .resume = request_.resume,
                                  .note = request_.note,
                                  .processes = request_.processes});
    trainer_->run(progress, stop);
    if (may_balance(options)) balance.undo();
    round_to_disk();
    report_.perplexity_after = perplexity(models_.student, "perplexity after", progress, stop);
    report_.steps = trainer_->position().step;
    report_.tokens = trainer_->position().tokens;
}

/// Of the held-out windows.
double Recovery::perplexity(model::CausalLm& model, const char* task, core::Progress& progress,
                            const std::stop_token& stop) {
    const auto& windows = text_.held_out;
    progress.begin(task, std::ssize(windows));
    double sum = 0;
    for (std::size_t i = 0; i < windows.size(); ++i) {
        core::throw_if_stopped(stop);
        sum += mean_nll(model, {windows[i]}, device_);
        progress.update(static_cast<std::int64_t>(i) + 1, "");
    }
    progress.end();
    return std::exp(sum / static_cast<double>(windows.size()));
}

/// What is measured afterwards is what is written.
void Recovery::round_to_disk() {
    if (request_.dtype == core::DType::f32) return;
    const torch::NoGradGuard no_gradients;
    for (const auto& parameter : trainer_->parameters()) parameter.value.copy_(parameter.value.to(torch::kBFloat16));
}

void Recovery::write() {
    std::map<std::string, torch::Tensor> trained;
    for (const auto& parameter : trainer_->parameters()) trained[parameter.name] = parameter.value;
    checkpoint::CheckpointWriter writer(request_.target, checkpoint::expected_tensors(converted_.config()),
                                        {.dtype = request_.dtype, .replace = request_.replace});
    for (const auto& spec : checkpoint::expected_tensors(converted_.config())) {
        const auto found = trained.find(spec.name);
        if (found == trained.end()) {
            checkpoint::copy_tensor(converted_, writer, spec);
        } else {
            model::write_tensor(found->second, writer, spec);
        }
    }
    auto files = kept_documents(converted_);
    files["README.md"] += card_section(report_, text_);
    files["finetune.json"] = record(report_, text_, request_).dump(2) + "\n";
    files["log.jsonl"] = core::read_text(core::partial_path(request_.target) / "log.jsonl");
    files["loss.svg"] = loss_plot(trainer_->log());
    for (const auto& [name, contents] : files) writer.add_file(name, contents);
    writer.finish();
    fs::remove_all(core::partial_path(request_.target));
}

[[noreturn]] void refuse_pair(const std::string& what, const Pair& models) {
    throw core::Error(
        {.what = what,
         .where = fmt::format("{} and --teacher {}", models.converted.path().string(), models.source.path().string()),
         .remedy = "name the model that was converted as --teacher"});
}

}  // namespace

core::OrderedJson RecoveryReport::to_json() const {
    return {{"source_perplexity", source_perplexity},
            {"perplexity_before", perplexity_before},
            {"perplexity_after", perplexity_after},
            {"steps", steps},
            {"tokens", tokens},
            {"seconds", seconds},
            {"peak_memory_bytes", peak_memory_bytes}};
}

data::TextWindows hold_out(std::vector<std::vector<int>> windows, int count, std::string origin) {
    const auto wanted = static_cast<std::size_t>(count);
    if (windows.size() < 2 * wanted || windows.empty()) {
        throw core::Error({.what = "the text is too short to train on",
                           .expected = fmt::format("at least {} windows, {} of them held out", 2 * wanted, count),
                           .got = fmt::format("{}", windows.size()),
                           .where = origin,
                           .remedy = "pass more --text, or a smaller --window or --held-out"});
    }
    data::TextWindows text{.windows = {}, .origin = std::move(origin)};
    for (std::size_t i = 0; i < windows.size(); ++i) {
        const bool held = (i + 1) * wanted / windows.size() > i * wanted / windows.size();
        (held ? text.held_out : text.windows).push_back(std::move(windows[i]));
    }
    return text;
}

void check_request(const Pair& models, const RecoveryRequest& request) {
    const auto& converted = models.converted.config();
    const auto& source = models.source.config();
    model::parse_device(request.options.device);
    checkpoint::check_target(request.target, request.replace);
    if (!converted.is_mla()) {
        throw core::Error({.what = "the model is not converted",
                           .where = models.converted.path().string(),
                           .remedy = "convert it first: mha2mla convert MODEL OUT"});
    }
    if (request.options.kv_format) cache::check_applies(*request.options.kv_format, true, "--kv-format");
    if (source.is_mla()) refuse_pair("the teacher is a converted model itself", models);
    const auto shape = [](const checkpoint::ModelConfig& config) {
        return std::array{config.vocab_size,          config.hidden_size,         config.num_hidden_layers,
                          config.num_attention_heads, config.num_key_value_heads, config.head_dim};
    };
    if (shape(converted) != shape(source)) {
        refuse_pair("the converted model and the teacher have other sizes", models);
    }
    const auto partial = core::partial_path(request.target);
    if (request.resume || !fs::exists(partial)) return;
    throw core::Error({.what = "an unfinished run is here",
                       .where = partial.string(),
                       .remedy = "pass --resume to go on with it, or remove it to start again"});
}

RecoveryReport recover(const Pair& models, const data::TextWindows& text, const RecoveryRequest& request,
                       core::Progress& progress, const std::stop_token& stop) {
    const auto started = Clock::now();
    Recovery recovery(models, text, request);
    recovery.train(progress, stop);
    auto& report = recovery.report();
    report.seconds = std::chrono::duration<double>(Clock::now() - started).count();
    report.peak_memory_bytes = core::peak_memory_bytes();
    if (request.processes->rank() == 0) recovery.write();
    return report;
}

}  // namespace mha2mla::finetune
