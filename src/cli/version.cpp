#include "cli/version.h"

#include <fmt/format.h>

#include "cli/workshop.h"
#include "kernels/kernels.h"

namespace mha2mla::cli {

std::string version() { return fmt::format("{} ({})", MHA2MLA_VERSION, MHA2MLA_COMMIT); }

std::string version_text() {
    return fmt::format("mha2mla {} (commit {}, {}, {} the workshop)", MHA2MLA_VERSION, MHA2MLA_COMMIT,
                       kernels::name_of(kernels::supported_isas().back()), has_workshop() ? "with" : "without");
}

}  // namespace mha2mla::cli
