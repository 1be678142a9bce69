#include "cli/session.h"
#include "cli/workshop.h"
#include "core/error.h"

namespace mha2mla::cli {
namespace {

[[noreturn]] void refuse(const std::string& what) {
    throw core::Error({.what = what + " needs the workshop, which this build leaves out",
                       .remedy = "build without --runtime-only (-DMHA2MLA_WORKSHOP=ON)"});
}

void add_missing(CLI::App& program, Session& session, const std::string& name) {
    CLI::App* verb = add_verb(program, session, name, "Not in this build", "  needs a build with the workshop");
    verb->allow_extras();
    verb->callback([name] { refuse(name); });
}

}  // namespace

bool has_workshop() { return false; }

eval::WindowScorer module_scorer(const checkpoint::Checkpoint&, const ModuleOptions&) {
    refuse("eval --engine workshop");
}

void add_calibrate(CLI::App& program, Session& session) { add_missing(program, session, "calibrate"); }

void add_convert(CLI::App& program, Session& session) { add_missing(program, session, "convert"); }

void add_finetune(CLI::App& program, Session& session) { add_missing(program, session, "finetune"); }

}  // namespace mha2mla::cli
