#pragma once

#include <array>
#include <cstdint>

#include "core/dtype.h"

namespace mha2mla::core {

/// 32 numbers in four bits each: scale * code + minimum, codes 0 to 15. Byte i holds the code of number i in its low
/// half and that of number i + 16 in its high half. What a block of GGUF's Q4_0 or Q4_1 says.
struct CodeGroup {
    f16 scale;
    f16 minimum;
    std::array<std::uint8_t, 16> codes;
};

}  // namespace mha2mla::core
