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

/// What is held out included.
std::int64_t windows_needed(const finetune::Options& options) {
    return (options.tokens + options.window - 1) / options.window + options.held_out;
}

/// Of one of `texts` that are mixed evenly.
SampledTextOptions sample_options(const finetune::Options& options, std::int64_t texts) {
    const auto windows = (windows_needed(options) + texts - 1) / texts;
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

/// The windows that an interrupted run sampled.
Windows read_windows(const std::filesystem::path& file) {
    try {
        return core::parse_json(core::read_text(file), file.string()).at("windows").get<Windows>();
    } catch (const core::Json::exception&) {
        throw core::Error({.what = "not windows of tokens", .where = file.string()});
    }
}

/// Of the teacher's own text, kept beside the snapshots.
Windows sampled_windows(const checkpoint::Checkpoint& teacher, const SampledTextOptions& options,
                        const finetune::RecoveryRequest& request, Session& session) {
    const auto file = finetune::partial_path(request.target) / "text.json";
    if (request.resume && std::filesystem::exists(file)) return read_windows(file);
    auto windows = sampled_text(teacher, options, session, *request.processes).windows;
    if (request.processes->rank() > 0) return windows;
    std::filesystem::create_directories(file.parent_path());
    core::write_text(file, core::OrderedJson{{"windows", windows}}.dump() + "\n");
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

finetune::TrainingText training_text(const checkpoint::Checkpoint& teacher, const TrainingTextOptions& text,
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
    return finetune::hold_out(data::mix_evenly(std::move(texts), static_cast<std::size_t>(windows_needed(options))),
                              options.held_out, fmt::format("{}", fmt::join(origins, ", ")));
}

}  // namespace mha2mla::cli
