#pragma once

#include "parallel/communicator.h"

namespace mha2mla::cli {

/// The processes that mpirun started, in mha2mla-mpi (mpi/); else this one alone (no_mpi/). Throws Error where they
/// cannot reach each other.
const parallel::Communicator& world();

/// Ends every process: for one that cannot go on while others wait for it. Returns where it is alone.
void end_other_processes(int exit_code);

}  // namespace mha2mla::cli
