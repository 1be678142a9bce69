#include <cstddef>
#include <cstdint>

#include "checkpoint/pickle.h"
#include "checkpoint/rank_table.h"
#include "core/error.h"

namespace {

void expect_value_or_error(std::span<const std::byte> bytes, bool whole_file) {
    try {
        if (whole_file) {
            mha2mla::checkpoint::parse_rank_table(bytes, "fuzz");
        } else {
            mha2mla::checkpoint::parse_pickle(bytes, "fuzz");
        }
    } catch (const mha2mla::core::Error&) {
    }
}

}  // namespace

/// Any bytes are a rank table (archive and all), a pickle, or an Error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
    expect_value_or_error(bytes, true);
    expect_value_or_error(bytes, false);
    return 0;
}
