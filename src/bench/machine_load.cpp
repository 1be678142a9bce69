#include "bench/machine_load.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace mha2mla::bench {
namespace {

MachineLoad look() {
    std::ifstream file("/proc/loadavg");
    std::string line;
    std::getline(file, line);
    return parse_load(line).value_or(MachineLoad{});
}

}  // namespace

std::optional<MachineLoad> parse_load(std::string_view loadavg) {
    std::istringstream words{std::string(loadavg)};
    MachineLoad load;
    double minutes_5 = 0, minutes_15 = 0;
    char slash = 0;
    words >> load.load_average >> minutes_5 >> minutes_15 >> load.runnable >> slash;
    if (!words || slash != '/') return std::nullopt;
    load.runnable = std::max(0, load.runnable - 1);
    return load;
}

MachineLoad machine_load() {
    constexpr int looks = 5;
    MachineLoad load = look();
    for (int i = 1; i < looks; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(12));
        load.runnable = std::min(load.runnable, look().runnable);
    }
    return load;
}

}  // namespace mha2mla::bench
