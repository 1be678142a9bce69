#include "kernels/peaks.h"

#include <gtest/gtest.h>

namespace mha2mla::kernels {
namespace {

TEST(PeakLoops, CountWhatTheyDo) {
    for (const Isa isa : supported_isas()) {
        const PeakLoops loops = peak_loops(isa);
        for (const auto loop : {loops.floats, loops.bf16, loops.bytes}) {
            if (loop == nullptr) continue;
            EXPECT_GT(loop(1), 0) << name_of(isa);
            EXPECT_EQ(loop(10), 10 * loop(1)) << name_of(isa);
        }
    }
}

}  // namespace
}  // namespace mha2mla::kernels
