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

/// The windows of all documents, each with the end-of-text token that a model expects behind it.
Windows windows_of_files(const checkpoint::Checkpoint& teacher, const std::vector<std::string>& files, int window) {
    const auto words = load_tokenizer(teacher);
    const auto& ends = teacher.config().eos_token_ids;
    std::vector<std::vector<int>> documents;
    for (const auto& file : files) {
        for (const auto& document : data::read_documents(file)) {
            documents.push_back(words->encode(document, false));
            if (!ends.empty()) documents.back().push_back(ends.front());
        }
    }
    return data::document_windows(documents, window, std::min(window, shortest_window));
}

SampledTextOptions sample_options(const finetune::Options& options) {
    const auto windows = (options.tokens + options.window - 1) / options.window + options.held_out;
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
Windows sampled_windows(const checkpoint::Checkpoint& teacher, const finetune::RecoveryRequest& request,
                        Session& session, const parallel::Communicator& processes) {
    const auto file = finetune::partial_path(request.target) / "text.json";
    if (request.resume && std::filesystem::exists(file)) return read_windows(file);
    auto windows = sampled_text(teacher, sample_options(request.options), session, processes).windows;
    if (processes.rank() > 0) return windows;
    std::filesystem::create_directories(file.parent_path());
    core::write_text(file, core::OrderedJson{{"windows", windows}}.dump() + "\n");
    return windows;
}

}  // namespace

void add_training_text_options(CLI::App& verb, TrainingTextOptions& text, finetune::Options& options) {
    verb.add_option("--text", text.files,
                    "Texts: a.txt,b.jsonl (field \"text\"); default self: sampled from the teacher")
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
                                     const finetune::RecoveryRequest& request, Session& session,
                                     const parallel::Communicator& processes) {
    const auto& options = request.options;
    if (options.window > teacher.config().max_position_embeddings) {
        throw core::Error({.what = "the window is longer than the model's context",
                           .expected = fmt::format("at most {}", teacher.config().max_position_embeddings),
                           .got = std::to_string(options.window),
                           .where = "--window"});
    }
    if (text.files == std::vector<std::string>{self}) {
        return finetune::hold_out(sampled_windows(teacher, request, session, processes), options.held_out,
                                  sampled_origin(sample_options(options), options.seed));
    }
    return finetune::hold_out(windows_of_files(teacher, text.files, options.window), options.held_out,
                              fmt::format("{}", fmt::join(text.files, ", ")));
}

}  // namespace mha2mla::cli
