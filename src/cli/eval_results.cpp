#include "cli/eval_command.h"
#include "cli/version.h"
#include "core/file.h"
#include "kernels/kernels.h"

namespace mha2mla::cli {

eval::ResultsFile results_file(const EvalCommand& command, core::Json task) {
    if (command.results.empty()) return {};
    const auto formats = weight_formats(command.model.decoder);
    const auto absolute = [](const std::string& path) {
        return path.empty() ? path : core::absolute_target(path).string();
    };
    const core::Json run{{"task", command.task},
                         {"settings", std::move(task)},
                         {"model", absolute(command.model.path)},
                         {"data", absolute(command.data)},
                         {"weights", kernels::name_of(formats.layers)},
                         {"output_weights", kernels::name_of(formats.output)},
                         {"kv_cache", cache::name_of(command.model.decoder.kv_cache)},
                         {"mha2mla", version()}};
    return {command.results, run};
}

}  // namespace mha2mla::cli
