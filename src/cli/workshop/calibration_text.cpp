#include "cli/workshop/calibration_text.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "calibrate/calibration.h"
#include "calibrate/statistics.h"
#include "calibrate/statistics_writer.h"
#include "cli/model_options.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"
#include "data/mixture.h"
#include "data/windows.h"

namespace mha2mla::cli {
namespace {

/// The documents of all files, read before any is tokenized: a bad line in the last one shows at once.
std::vector<std::vector<std::string>> read_files(const std::vector<std::string>& files) {
    std::vector<std::vector<std::string>> documents;
    for (const auto& file : files) {
        documents.push_back(data::read_documents(file));
        const auto& texts = documents.back();
        if (std::any_of(texts.begin(), texts.end(), [](const auto& text) { return !text.empty(); })) continue;
        throw core::Error({.what = "the calibration text is empty", .where = file});
    }
    return documents;
}

/// Documents one after the other, with the model's end-of-text token between them.
std::vector<int> joined(const std::vector<std::string>& documents, const tokenizer::Tokenizer& words,
                        const checkpoint::ModelConfig& config) {
    std::vector<int> tokens;
    for (const auto& document : documents) {
        if (!tokens.empty() && !config.eos_token_ids.empty()) tokens.push_back(config.eos_token_ids.front());
        const auto ids = words.encode(document, false);
        tokens.insert(tokens.end(), ids.begin(), ids.end());
    }
    return tokens;
}

std::string files_origin(const CalibrationTextOptions& options) {
    return fmt::format("{}", fmt::join(options.files, ", "));
}

data::TextWindows from_files(const checkpoint::Checkpoint& model, const CalibrationTextOptions& options,
                             std::uint64_t seed) {
    const auto documents = read_files(options.files);
    const auto words = load_tokenizer(model);
    std::vector<data::TokenStream> texts;
    for (std::size_t i = 0; i < documents.size(); ++i) {
        texts.push_back({options.files[i], joined(documents[i], *words, model.config())});
    }
    return {.windows = data::mix_windows(texts, {.windows = options.windows, .window = options.window, .seed = seed}),
            .origin = files_origin(options)};
}

/// Tokens of a window.
int window_of(const CalibrationTextOptions& options, const checkpoint::ModelConfig& config) {
    const int longest = config.max_position_embeddings;
    if (options.asked_window.value_or(0) > longest) {
        throw core::Error({.what = "a calibration window is longer than the model's context",
                           .expected = fmt::format("at most {}", longest),
                           .got = fmt::to_string(*options.asked_window),
                           .where = "--calibration-window"});
    }
    return options.asked_window.value_or(std::min(options.window, longest));
}

/// The text of an interrupted calibration, where every process finds it.
std::optional<data::TextWindows> interrupted_everywhere(const std::filesystem::path& statistics, int vocab_size,
                                                        const parallel::Communicator& processes) {
    auto before = statistics.empty()
                      ? std::nullopt
                      : calibrate::interrupted_text(calibrate::statistics_of(statistics, processes.rank()), vocab_size);
    double found = before ? 1 : 0;
    processes.sum({&found, 1});
    if (found == 0 || found == processes.size()) return before;
    throw core::Error({.what = "some processes of an interrupted calibration lost what they kept of it",
                       .expected = fmt::format("{} directories", processes.size()),
                       .got = fmt::format("{}", found),
                       .where = core::partial_path(statistics).string(),
                       .remedy = fmt::format("remove {}*.partial to start again", statistics.string())});
}

}  // namespace

void add_calibration_options(CLI::App& verb, CalibrationTextOptions& options) {
    verb.add_option("--calibration", options.files,
                    "Texts, evenly mixed: a.txt,b.jsonl (field \"text\"); default: sampled from the source model")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->type_name("FILES");
    verb.add_option("--calibration-temperatures", options.temperatures,
                    "Of sampled text, such as 0.7,1: windows take turns")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(0.1, 2.0))
        ->capture_default_str();
    verb.add_option("--calibration-windows", options.windows, "Number of windows")
        ->check(CLI::Range(1, 1 << 16))
        ->capture_default_str();
    verb.add_option("--calibration-window", options.asked_window,
                    "Tokens of a window, as many as the model's context at most")
        ->check(CLI::Range(2, 1 << 16))
        ->default_str(std::to_string(options.window));
}

void add_memory_option(CLI::App& verb, std::size_t& bytes) {
    constexpr std::size_t share = 4;
    bytes = core::physical_memory_bytes() / share;
    verb.add_option(
            "--memory", bytes,
            "What calibration may keep of its text's states in memory (512M, 4G); the rest goes to disk, beside "
            "what is written. Default: a quarter of the machine's")
        ->transform(CLI::AsSizeValue(false))
        ->type_name("SIZE");
}

data::TextWindows calibration_text(const checkpoint::Checkpoint& model, CalibrationTextOptions options,
                                   const std::filesystem::path& statistics, Session& session,
                                   const parallel::Communicator& processes) {
    options.window = window_of(options, model.config());
    calibrate::check_window(options.window, options.shortest_window);
    const auto seed = session.options().seed;
    if (!options.files.empty()) {
        auto text = from_files(model, options, seed);
        if (std::ssize(text.windows) < options.windows) {
            session.note(
                fmt::format("the calibration text has {} of {} windows", text.windows.size(), options.windows));
        }
        return text;
    }
    const auto before = interrupted_everywhere(statistics, model.config().vocab_size, processes);
    if (!before) return sampled_text(model, options, session, processes);
    if (before->origin == sampled_origin(options, seed)) return *before;
    throw core::Error({.what = "an interrupted calibration on another text is here",
                       .expected = sampled_origin(options, seed),
                       .got = before->origin,
                       .where = core::partial_path(statistics).string(),
                       .remedy = "remove it, name another --statistics, or ask for the text it began with"});
}

void check_same_text(const CalibrationTextOptions& options, const std::filesystem::path& statistics) {
    if (options.files.empty() || statistics.empty()) return;
    const auto found = calibrate::text_of(statistics).origin;
    if (found == files_origin(options)) return;
    throw core::Error({.what = "the statistics that are there are of another text",
                       .expected = files_origin(options),
                       .got = found,
                       .where = statistics.string(),
                       .remedy = "leave --calibration out to use them, or name another --statistics"});
}

void note_interruption(const std::filesystem::path& statistics, const Session& session) {
    if (statistics.empty()) return;
    const auto partial = core::partial_path(statistics).string();
    if (!std::filesystem::exists(partial)) return;
    session.note(fmt::format("\nfinished layers are kept in {}: the same command goes on from there", partial));
}

}  // namespace mha2mla::cli
