#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "cli/eval_command.h"
#include "cli/version.h"
#include "core/file.h"
#include "kernels/kernels.h"

namespace mha2mla::cli {
namespace {

namespace fs = std::filesystem;

/// Weights, configuration or tokenizer.
bool is_of_model(const fs::path& file) {
    constexpr std::array endings{".safetensors", ".json", ".model", ".txt", ".jinja"};
    return std::ranges::count(endings, file.extension()) > 0;
}

/// Changes when a file, or one that a model in a folder consists of, is written anew: their bytes and when the last of
/// them came (UTC).
std::string state_of(const fs::path& path) {
    std::uintmax_t bytes = 0;
    fs::file_time_type written = fs::file_time_type::min();
    const auto add = [&](const fs::path& file) {
        std::error_code gone;
        if (!fs::is_regular_file(file, gone)) return;
        bytes += fs::file_size(file, gone);
        written = std::max(written, fs::last_write_time(file, gone));
    };
    add(path);
    std::error_code no_folder;
    for (const auto& entry : fs::directory_iterator(path, no_folder)) {
        if (is_of_model(entry.path())) add(entry.path());
    }
    const auto time = std::chrono::floor<std::chrono::nanoseconds>(fs::file_time_type::clock::to_sys(written));
    const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
    return fmt::format("{} bytes, written {:%F %T}.{:09}", bytes, seconds, (time - seconds).count());
}

/// Of each file, by its absolute path.
core::Json states_of(const std::vector<fs::path>& files) {
    core::Json states = core::Json::object();
    for (const auto& file : files) states[core::absolute_target(file).string()] = state_of(file);
    return states;
}

}  // namespace

core::OrderedJson run_report(const EvalCommand& command) {
    const auto formats = weight_formats(command.model.decoder);
    core::OrderedJson run{{"model", command.model.path}};
    for (const auto& [name, value] :
         {std::pair{"source", command.against}, {"data", command.data}, {"text", command.text}}) {
        if (!value.empty()) run[name] = value;
    }
    run.update({{"weights", kernels::name_of(formats.layers)},
                {"output_weights", kernels::name_of(formats.output)},
                {"mha2mla", version()}});
    if (command.limit > 0) run["limit"] = command.limit;
    return run;
}

std::string cache_text(const core::OrderedJson& kv_cache) {
    return fmt::format("{} cache, {} bytes a token", kv_cache["format"].get<std::string>(),
                       kv_cache["bytes_per_token"].get<std::size_t>());
}

eval::ResultsFile results_file(const EvalCommand& command, const std::vector<fs::path>& files, core::Json settings) {
    if (command.results.empty()) return {};
    const auto formats = weight_formats(command.model.decoder);
    const core::Json run{{"task", command.task},
                         {"settings", std::move(settings)},
                         {"model", states_of({command.model.path})},
                         {"files", states_of(files)},
                         {"weights", kernels::name_of(formats.layers)},
                         {"output_weights", kernels::name_of(formats.output)},
                         {"kv_cache", cache::name_of(command.model.decoder.kv_cache)},
                         {"attention", attention_names.at(static_cast<std::size_t>(command.model.decoder.attention))},
                         {"mha2mla", version()}};
    return {command.results, run};
}

}  // namespace mha2mla::cli
