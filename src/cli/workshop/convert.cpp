#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "cli/choice.h"
#include "cli/model_options.h"
#include "cli/session.h"
#include "cli/version.h"
#include "cli/workshop/calibration_text.h"
#include "convert/pipeline.h"
#include "core/error.h"
#include "model/options.h"

namespace mha2mla::cli {
namespace {

struct ConvertCommand {
    std::string source;
    convert::ConversionOptions conversion;
    convert::ConvertRequest request;
    CalibrationTextOptions calibration;
    bool rotate_latent = false;
    bool dry_run = false;
};

const std::map<std::string, convert::Selection> selections{{"high", convert::Selection::high},
                                                           {"low", convert::Selection::low},
                                                           {"uniform", convert::Selection::uniform},
                                                           {"2-norm", convert::Selection::two_norm},
                                                           {"table", convert::Selection::table}};

const std::map<std::string, convert::Factorization> factorizations{{"joint-svd", convert::Factorization::joint_svd},
                                                                   {"split-svd", convert::Factorization::split_svd},
                                                                   {"none", convert::Factorization::none}};

/// --select high, or --select table FILE.
void apply_selection(const std::vector<std::string>& words, convert::ConversionOptions& options) {
    const auto selection = selections.find(words[0]);
    const bool takes_file = words[0] == "table";
    if (selection == selections.end() || words.size() != (takes_file ? 2u : 1u)) {
        throw core::Error({.what = "not a selection",
                           .expected = "high, low, uniform, 2-norm, or table FILE.pth",
                           .got = fmt::format("'{}'", fmt::join(words, " ")),
                           .where = "--select",
                           .remedy = "write MODEL and OUT before it"});
    }
    options.selection = selection->second;
    if (takes_file) options.rank_table = words[1];
}

/// A number, or nothing for "auto".
std::optional<int> count_or_auto(const char* option, const std::string& text) {
    if (text == "auto") return std::nullopt;
    int count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error == std::errc() && end == text.data() + text.size()) return count;
    throw core::Error({.what = "not a number",
                       .expected = "auto or a whole number",
                       .got = fmt::format("'{}'", text),
                       .where = option});
}

/// An option of some methods only.
struct MethodOption {
    const char* name;
    std::array<std::string_view, 2> methods;  // the first is what the option stands for where --method is absent
};
constexpr std::array method_options{MethodOption{"--select", {"mha2mla"}},
                                    MethodOption{"--factor", {"mha2mla"}},
                                    MethodOption{"--rope-pairs", {"mha2mla"}},
                                    MethodOption{"--split-full-rank", {"mha2mla"}},
                                    MethodOption{"--latent-groups", {"mha2mla"}},
                                    MethodOption{"--freqfold", {"transmla"}},
                                    MethodOption{"--balance-kv", {"transmla"}},
                                    MethodOption{"--by-layer", {"lsq"}},
                                    MethodOption{"--compensate", {"lsq"}},
                                    MethodOption{"--shared-rope", {"lsq"}},
                                    MethodOption{"--mean-key", {"lsq"}},
                                    MethodOption{"--refit-output", {"lsq"}},
                                    MethodOption{"--sinks", {"lsq"}},
                                    MethodOption{"--metric", {"lsq"}},
                                    MethodOption{"--export-shape", {"lsq"}},
                                    MethodOption{"--rope-components", {"lsq", "transmla"}},
                                    MethodOption{"--statistics", {"lsq", "transmla"}}};

/// lsq, or the method that the first of the other options belongs to.
void choose_method(const CLI::App& verb, std::string& method) {
    for (const auto& option : method_options) {
        if (verb.get_option(option.name)->count() == 0) continue;
        if (method.empty()) method = option.methods[0];
        if (std::find(option.methods.begin(), option.methods.end(), method) != option.methods.end()) continue;
        throw core::Error({.what = fmt::format("the method {} has no such option", method),
                           .where = option.name,
                           .remedy = fmt::format("leave it out, or pass --method {}", option.methods[0])});
    }
    if (method.empty()) method = "lsq";
}

std::string saving_text(const convert::Plan& plan) {
    const double saved = 100 * (1 - plan.cache_ratio());
    return saved < 0 ? fmt::format("{:.2f} % more", -saved) : fmt::format("{:.2f} % less", saved);
}

std::string plan_text(const convert::Plan& plan) {
    const auto& mla = plan.target.mla();
    const int before = plan.source.cached_elements(0);
    const auto groups = mla.latent_groups > 1 ? fmt::format(" in {} groups", mla.latent_groups) : "";
    std::string text = fmt::format("{} layers; cached elements a token and layer (source {}):\n",
                                   plan.target.num_hidden_layers, before);
    for (int layer = 0; layer < plan.target.num_hidden_layers; ++layer) {
        const auto l = static_cast<std::size_t>(layer);
        text += fmt::format("  layer {:2}: latent {:4}{} + rotary {} x {} = {:4}\n", layer, mla.kv_lora_rank[l], groups,
                            mla.num_rope_key_heads, mla.qk_rope_head_dim[l], mla.cached_elements(layer));
    }
    const auto& lsq = plan.options.lsq;
    if (plan.options.method == "lsq" && *lsq.by_layer) {
        text += "these sums stand; the layers will share them by what each loses on calibration text\n";
    }
    if (plan.options.method == "lsq" && lsq.deepseek_shape && !lsq.rope_components) {
        text += "these sums stand; what of them is rotary key will be chosen on calibration text\n";
    }
    return text + fmt::format("KV cache: {}\n", saving_text(plan));
}

/// What comparisons on held-out calibration text say of the model's quality.
std::string trial_text(const convert::Trial& trial) {
    std::string text =
        fmt::format("perplexity on {} held-out calibration windows: {:.2f} of the source", trial.windows, trial.source);
    for (const auto& result : trial.alternatives) {
        text += fmt::format(", {:.2f} with {}{}", result.perplexity, result.name, result.chosen ? " (this model)" : "");
    }
    return text + "\n";
}

std::string report_text(const convert::ConversionReport& report, const std::filesystem::path& target) {
    double keys = 0;
    double values = 0;
    for (const auto& layer : report.layers) {
        keys += layer.key_energy / static_cast<double>(report.layers.size());
        values += layer.value_energy / static_cast<double>(report.layers.size());
    }
    return fmt::format(
               "{}: KV cache {}; the factors keep {:.1f} % of the energy of the un-rotated keys' weights "
               "and "
               "{:.1f} % of the values' ({}, at most {:.2f} GB of memory)\n",
               target.string(), saving_text(report.plan), 100 * keys, 100 * values,
               core::format_duration(report.seconds), static_cast<double>(report.peak_memory_bytes) / 1e9) +
           (report.trial ? trial_text(*report.trial) : "");
}

void convert_model(ConvertCommand& command, Session& session) {
    const auto source = checkpoint::Checkpoint::open(command.source);
    if (command.rotate_latent) command.conversion.latent_rotation = session.options().seed;
    const auto plan = convert::make_plan(source.config(), command.conversion);
    if (command.dry_run) return session.print(convert::plan_to_json(plan), plan_text(plan));

    model::use_threads(session.options().threads);
    convert::check_request(command.request);
    data::TextWindows calibration;
    if (convert::needs_calibration(command.conversion, command.request)) {
        convert::check_calibration_size(plan, command.calibration.windows);
        if (convert::find_method(plan.options.method).needs_moments) {
            command.calibration.shortest_window = calibrate::shortest_window({.sinks = plan.options.lsq.sinks});
        }
        command.calibration.memory_bytes = command.request.memory_bytes;
        calibration = calibration_text(source, command.calibration, command.request.statistics, session);
    } else {
        check_same_text(command.calibration, command.request.statistics);
    }
    command.request.version = version();
    command.request.command = session.command();
    const auto report =
        convert::convert(source, plan, calibration, command.request, session.progress(), session.stop());
    session.print(report.to_json(), report_text(report, command.request.target));
}

void add_method_options(CLI::App& verb, ConvertCommand& command) {
    auto& options = command.conversion;
    options.method.clear();
    verb.add_option("--method", options.method,
                    "lsq (calibrated least squares; the default), mha2mla (arXiv 2502.14837) or transmla (2502.07864)")
        ->check(CLI::IsMember({"lsq", "mha2mla", "transmla"}));
    verb.add_option_function<std::vector<std::string>>(
            "--select", [&options](const auto& words) { apply_selection(words, options); },
            "Pairs that keep RoPE: high, low, uniform (default), 2-norm, or table FILE.pth")
        ->expected(1, 2)
        ->type_name("RULE [FILE]");
    verb.add_option("--factor", options.factorization, "joint-svd (default), split-svd, or none (exact, saves little)")
        ->transform(choice_of(factorizations))
        ->type_name("FACTOR");
    verb.add_option("--rope-pairs", options.rope_pairs,
                    "Pairs that keep RoPE per key/value head; default head_dim / 16");
    auto* rank = verb.add_option("--kv-rank", options.kv_rank, "Latent width per key/value head");
    verb.add_option("--cache-ratio", options.cache_ratio,
                    "Share of the source's cache to keep; default 0.5 (lsq, transmla) or 0.3125 (mha2mla)")
        ->check(CLI::Number)
        ->excludes(rank);
    verb.add_flag(
        "--rotate-latent", command.rotate_latent,
        "Spread latents evenly over their channels (--seed), for caches with a scale for a group of a token's "
        "row, such as int4; changes nothing else");
    verb.add_option("--latent-groups", options.latent_groups,
                    "mha2mla: groups of key/value heads, each with a latent of its own; the cache keeps as many "
                    "elements. Wide latents are read faster, and lose more")
        ->capture_default_str()
        ->type_name("N");
    verb.add_flag("--split-full-rank", options.split_full_rank, "split-svd as in the reference code: twice the latent");
}

void add_lsq_options(CLI::App& verb, convert::LsqOptions& options) {
    verb.add_flag_function(
            "--by-layer,!--no-by-layer", [&options](std::int64_t count) { options.by_layer = count > 0; },
            "lsq: layers share the cache by what they lose; not with --kv-rank or --metric plain")
        ->group("lsq");
    verb.add_flag("--compensate,!--no-compensate", options.compensate, "lsq: best constant for a lost rotation")
        ->group("lsq");
    verb.add_flag("--shared-rope,!--no-shared-rope", options.shared_rope, "lsq: rotary components mix the heads")
        ->group("lsq");
    auto* mean_key = verb.add_flag("--mean-key,!--no-mean-key", options.mean_key, "lsq: the keys' mean keeps its RoPE")
                         ->group("lsq");
    verb.add_flag("--refit-output", options.refit_output, "lsq: fit output matrices anew, layer after layer")
        ->group("lsq");
    auto* sinks = verb.add_option("--sinks", options.sinks, "lsq: first tokens that stay exact")
                      ->capture_default_str()
                      ->group("lsq");
    verb.add_option_function<std::string>(
            "--export-shape", [&options](const std::string& name) { options.deepseek_shape = name == "deepseek"; },
            "lsq: any (default), or deepseek: only what engines without mha2mla load once it is exported")
        ->check(CLI::IsMember({"any", "deepseek"}))
        ->excludes(mean_key)
        ->excludes(sinks)
        ->group("lsq");
    verb.add_option_function<std::string>(
            "--metric", [&options](const std::string& name) { options.weighted = name == "weighted"; },
            "lsq: how errors count: weighted (default) or plain")
        ->check(CLI::IsMember({"weighted", "plain"}))
        ->group("lsq");
}

/// What belongs to the one rotary key that both methods share.
void add_shared_key_options(CLI::App& verb, convert::ConversionOptions& options) {
    verb.add_option_function<std::string>(
            "--rope-components",
            [&options](const std::string& count) {
                options.lsq.rope_components = options.transmla.rope_components =
                    count_or_auto("--rope-components", count);
            },
            "lsq, transmla: rotary pairs of the shared key; default auto: by the errors of each layer, or (lsq "
            "--no-by-layer, "
            "transmla) by the size of the cache")
        ->type_name("N|auto")
        ->group("lsq, transmla");
}

void add_transmla_options(CLI::App& verb, convert::TransmlaOptions& options) {
    verb.add_option_function<std::string>(
            "--freqfold", [&options](const std::string& fold) { options.freqfold = count_or_auto("--freqfold", fold); },
            "transmla: adjacent frequencies that count as one; default auto: by held-out calibration windows")
        ->type_name("N|auto")
        ->group("transmla");
    verb.add_option("--balance-kv", options.balance_kv, "transmla: norm of the keys, in that of the values")
        ->capture_default_str()
        ->group("transmla");
}

}  // namespace

void add_convert(CLI::App& program, Session& session) {
    auto command = std::make_shared<ConvertCommand>();
    CLI::App* verb = add_verb(program, session, "convert", "Convert a model to multi-head latent attention",
                              "  mha2mla convert model.gguf converted\n"
                              "  mha2mla convert llama/ converted --cache-ratio 0.25 --calibration book.txt --dry-run\n"
                              "  mha2mla convert llama/ converted --select 2-norm --cache-ratio 0.1875\n"
                              "  mha2mla convert llama/ converted --select table ranks.pth --kv-rank 16\n"
                              "  mha2mla convert llama/ converted --method transmla --rope-components 8 --freqfold 4");
    verb->add_option("MODEL", command->source, "Source: directory or GGUF file")->required();
    verb->add_option("OUT", command->request.target, "Directory to write")->required();
    add_method_options(*verb, *command);
    add_shared_key_options(*verb, command->conversion);
    add_lsq_options(*verb, command->conversion.lsq);
    add_transmla_options(*verb, command->conversion.transmla);
    add_calibration_options(*verb, command->calibration);
    add_memory_option(*verb, command->request.memory_bytes);
    add_dtype_option(*verb, "--dtype", command->request.dtype, "Weights on disk");
    verb->add_option("--device", command->request.device, "Where to compute, as LibTorch spells it")
        ->capture_default_str();
    verb->add_option("--statistics", command->request.statistics,
                     "lsq, transmla: directory that keeps the calibration; read where it exists, else written");
    verb->add_flag("--force", command->request.replace, "Replace OUT where it exists");
    verb->add_flag("--dry-run", command->dry_run, "Print the plan and what it would save; write nothing");
    verb->callback([command, verb, &session] {
        choose_method(*verb, command->conversion.method);
        try {
            convert_model(*command, session);
        } catch (const core::Cancelled&) {
            note_interruption(command->request.statistics, session);
            throw;
        }
    });
}

}  // namespace mha2mla::cli
