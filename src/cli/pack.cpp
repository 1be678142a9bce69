#include <fmt/format.h>
#include <memory>

#include "cli/model_options.h"
#include "cli/session.h"
#include "runtime/weights.h"

namespace mha2mla::cli {
namespace {

struct PackCommand {
    std::string model;
    std::string out;
    runtime::DecoderOptions options;
};

void pack(const PackCommand& command, Session& session) {
    const auto model = checkpoint::Checkpoint::open(command.model);
    const auto formats = weight_formats(command.options);
    const std::filesystem::path out =
        command.out.empty() ? runtime::packed_weights_path(model, formats) : std::filesystem::path(command.out);
    const auto weights = runtime::load_weights(model, {.formats = formats}, session.pool(), session.progress());
    runtime::save_packed_weights(out, model, formats, weights.store.matrices());
    session.print({{"path", out.string()}, {"weights", runtime::name_of(formats)}, {"bytes", weights.store.bytes()}},
                  fmt::format("{}: {:.1f} MB of weights in {}\n", out.string(),
                              static_cast<double>(weights.store.bytes()) / 1e6, runtime::name_of(formats)));
}

}  // namespace

void add_pack(CLI::App& program, Session& session) {
    auto command = std::make_shared<PackCommand>();
    CLI::App* verb = add_verb(program, session, "pack", "Save a model's weights as they lie in memory, to start faster",
                              "  mha2mla pack MODEL --weights int8\n"
                              "  mha2mla pack MODEL /var/cache/model.mha2mla --weights int4\n"
                              "Other verbs map the file where it lies beside the model (the default) or --packed names "
                              "it.");
    verb->add_option("MODEL", command->model, "Directory or GGUF file")->required();
    verb->add_option("OUT", command->out, "File to write; default: beside the model");
    add_weight_options(*verb, command->options);
    verb->callback([command, &session] { pack(*command, session); });
}

}  // namespace mha2mla::cli
