#include "cli/eval_command.h"
#include "cli/version.h"
#include "kernels/kernels.h"

namespace mha2mla::cli {

eval::ResultsFile results_file(const EvalCommand& command, core::Json task) {
    if (command.results.empty()) return {};
    const auto formats = weight_formats(command.model.decoder);
    const auto absolute = [](const std::string& path) {
        return std::filesystem::absolute(path).lexically_normal().string();
    };
    core::Json run{{"version", version()},
                   {"model", absolute(command.model.path)},
                   {"weights", kernels::name_of(formats.layers)},
                   {"output_weights", kernels::name_of(formats.output)},
                   {"kv_cache", cache::name_of(command.model.decoder.kv_cache)},
                   {"task", command.task},
                   {"data", absolute(command.data)}};
    run.update(task);
    return {command.results, run};
}

}  // namespace mha2mla::cli
