#pragma once

#include <optional>
#include <string_view>

namespace mha2mla::bench {

/// What else runs on this machine: contention halves every number that a benchmark prints.
struct MachineLoad {
    double load_average = 0;  ///< of the last minute, this program's own work included
    int runnable = 0;         ///< threads that have or want a CPU, the asking one aside
};

/// From the text of Linux's /proc/loadavg, such as "0.20 0.18 0.12 2/480 11206"; nothing where it is of another form.
std::optional<MachineLoad> parse_load(std::string_view loadavg);

/// The fewest runnable threads of some looks in 50 ms, so that a short one does not count. To be asked while this
/// program has no threads of its own. Zeros where the system does not tell.
MachineLoad machine_load();

}  // namespace mha2mla::bench
