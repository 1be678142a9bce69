#include "cli/workshop/training_text.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/model_options.h"
#include "cli/workshop/sampled_text.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/memory.h"
#include "data/document_windows.h"
#include "data/text_windows.h"
#include "data/windows.h"

namespace mha2mla::cli {
namespace {

using Windows = std::vector<std::vector<int>>;

constexpr const char* self = "self";
constexpr int shortest_window = 16;

/// Of all documents of a file, each with the end-of-text token that a model expects behind it.
Windows windows_of_file(const std::string& file, const tokenizer::Tokenizer& words,
                        const checkpoint::ModelConfig& config, int window) {
    std::vector<std::vector<int>> documents;
    for (const auto& document : data::read_documents(file)) {
        documents.push_back(words.encode(document, false));
        if (!config.eos_token_ids.empty()) documents.back().push_back(config.eos_token_ids.front());
    }
    return data::document_windows(documents, window, std::min(window, shortest_window));
}

/// What is held out included, and at least as much again.
std::int64_t tokens_needed(const finetune::Options& options) {
    const std::int64_t held_out = std::int64_t{options.held_out} * options.window;
    return held_out + std::max(options.tokens, held_out);
}

/// Of one of `texts` that are mixed evenly.
SampledTextOptions sample_options(const finetune::Options& options, std::int64_t texts) {
    const auto windows = (tokens_needed(options) / texts + options.window - 1) / options.window;
    if (windows > 1 << 20) {
        throw core::Error({.what = "too much text to be sampled",
                           .expected = fmt::format("at most {} windows", 1 << 20),
                           .got = std::to_string(windows),
                           .where = "--tokens",
                           .remedy = "pass --text FILE"});
    }
    return {.windows = static_cast<int>(windows),
            .window = options.window,
            .memory_bytes = core::physical_memory_bytes() / 4};
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
    throw core::Error({.what = what,
                       .where = file.string(),
                       .remedy = "repeat the command that began the run, or remove its directory to start again"});
}

/// The windows that an interrupted run sampled.
Windows read_windows(const std::filesystem::path& file, const std::string& origin, const finetune::Options& options,
                     int vocab_size) {
    const auto json = core::parse_json(core::read_text(file), file.string());
    const core::JsonObject fields(json, file.string());
    if (fields.string("origin") != origin) refuse(file, "the text of another run");
    Windows windows;
    try {
        windows = data::read_windows(fields, "windows", vocab_size);
    } catch (const core::Error& error) {
        refuse(file, error.info().what);
    }
    const auto longest = static_cast<std::size_t>(options.window);
    const bool fit = std::all_of(windows.begin(), windows.end(),
                                 [&](const auto& window) { return window.size() >= 2 && window.size() <= longest; });
    if (!fit) refuse(file, "windows of other lengths");
    return windows;
}

void write_windows(const std::filesystem::path& file, const std::string& origin, const Windows& windows) {
    std::filesystem::create_directories(file.parent_path());
    const std::filesystem::path unfinished = file.string() + ".new";
    core::write_text(unfinished, core::OrderedJson{{"origin", origin}, {"windows", windows}}.dump() + "\n");
    std::filesystem::rename(unfinished, file);
}

/// Of the teacher's own text, kept beside the snapshots. The first process says whether it is there.
Windows sampled_windows(const checkpoint::Checkpoint& teacher, const SampledTextOptions& sampling,
                        const finetune::RecoveryRequest& request, Session& session) {
    const auto file = core::partial_path(request.target) / "text.json";
    const auto origin = sampled_origin(sampling, request.options.seed);
    const bool is_first = request.processes->rank() == 0;
    double there = is_first && request.resume && std::filesystem::exists(file) ? 1 : 0;
    request.processes->sum({&there, 1});
    if (there > 0) return read_windows(file, origin, request.options, teacher.config().vocab_size);
    auto windows = sampled_text(teacher, sampling, session, *request.processes).windows;
    if (is_first) write_windows(file, origin, windows);
    return windows;
}

}  // namespace

void add_training_text_options(CLI::App& verb, TrainingTextOptions& text, finetune::Options& options) {
    verb.add_option("--text", text.files,
                    "Texts, evenly mixed: a.txt,b.jsonl (field \"text\"); default self: sampled from the teacher")
        ->delimiter(',')
        ->type_name("FILES");
    verb.add_option("--window", options.window, "Tokens that are attended to together")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    verb.add_option("--held-out", options.held_out, "Windows of the text that are not trained on, for perplexities")
        ->check(CLI::Range(1, 1 << 16))
        ->capture_default_str();
}

data::TextWindows training_text(const checkpoint::Checkpoint& teacher, const TrainingTextOptions& text,
                                const finetune::RecoveryRequest& request, Session& session) {
    const auto& options = request.options;
    if (options.window > teacher.config().max_position_embeddings) {
        throw core::Error({.what = "the window is longer than the model's context",
                           .expected = fmt::format("at most {}", teacher.config().max_position_embeddings),
                           .got = std::to_string(options.window),
                           .where = "--window"});
    }
    const auto sampling = sample_options(options, std::ssize(text.files));
    const auto words = load_tokenizer(teacher);
    std::vector<Windows> texts;
    std::vector<std::string> origins;
    for (const auto& file : text.files) {
        const bool samples = file == self;
        texts.push_back(samples ? sampled_windows(teacher, sampling, request, session)
                                : windows_of_file(file, *words, teacher.config(), options.window));
        origins.push_back(samples ? sampled_origin(sampling, options.seed) : file);
    }
    return finetune::hold_out(data::mix_evenly(std::move(texts), static_cast<std::size_t>(tokens_needed(options))),
                              options.held_out, fmt::format("{}", fmt::join(origins, ", ")));
}

}  // namespace mha2mla::cli
