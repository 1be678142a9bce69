#include <cstddef>
#include <cstdint>
#include <string_view>

#include "checkpoint/model_config.h"
#include "checkpoint/tensors.h"
#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

void expect_round_trip(std::string_view text) {
    const auto json = core::parse_json(text, "fuzz");
    const auto config = parse_config(json, "fuzz");
    const auto written = config_to_json(config, json).dump();
    core::invariant(parse_config(core::parse_json(written, "written"), "written") == config,
                    "a config survives writing and reading");
    for (const auto& spec : expected_tensors(config)) element_count(spec.shape);
    core::invariant(rope_frequencies(config).size() * 2 == static_cast<std::size_t>(config.head_dim), "d / 2 pairs");
}

}  // namespace
}  // namespace mha2mla::checkpoint

/// Any text is either a config whose written form reads back equal, or an Error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        mha2mla::checkpoint::expect_round_trip({reinterpret_cast<const char*>(data), size});
    } catch (const mha2mla::core::Error&) {
    }
    return 0;
}
