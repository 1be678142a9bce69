#include "cli/workshop/shared_run.h"

#include <iostream>

#include "cli/world.h"
#include "core/error.h"

namespace mha2mla::cli {

void run_shared(core::FunctionRef<void()> work, core::FunctionRef<void()> on_stop) {
    try {
        work();
    } catch (const core::Cancelled&) {
        on_stop();
        end_other_processes(130);
        throw;
    } catch (const std::exception& error) {
        if (world().size() > 1) std::cerr << "mha2mla: " << error.what() << std::endl;
        end_other_processes(1);
        throw;
    }
}

}  // namespace mha2mla::cli
