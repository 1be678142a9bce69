#include "calibrate/hidden_states.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::calibrate {
namespace {

namespace fs = std::filesystem;

torch::Tensor states(std::int64_t tokens, int seed) {
    torch::manual_seed(static_cast<std::uint64_t>(seed));
    return torch::randn({1, tokens, 8});
}

torch::Tensor rounded(const torch::Tensor& x) { return x.to(torch::kBFloat16).to(torch::kFloat32); }

/// Windows of unlike lengths, replaced in another order, by how much memory they may take: all, the first only, none.
class HiddenStatesTest : public testing::TestWithParam<std::size_t> {};

TEST_P(HiddenStatesTest, GiveBackWhatTheyGotRoundedToBf16) {
    HiddenStates hidden({.memory_bytes = GetParam(), .spill_directory = testing::TempDir()});
    for (const int window : {0, 1, 2}) hidden.append(states(5 + window, window));
    ASSERT_EQ(hidden.windows(), 3u);
    for (const int window : {0, 1, 2}) {
        const auto i = static_cast<std::size_t>(window);
        EXPECT_EQ(hidden.tokens(i), 5 + window);
        EXPECT_TRUE(torch::equal(hidden.get(i), rounded(states(5 + window, window)))) << window;
    }
    for (const int window : {2, 0}) hidden.replace(static_cast<std::size_t>(window), states(5 + window, 10 + window));
    EXPECT_TRUE(torch::equal(hidden.get(0), rounded(states(5, 10))));
    EXPECT_TRUE(torch::equal(hidden.get(1), rounded(states(6, 1))));
    EXPECT_TRUE(torch::equal(hidden.get(2), rounded(states(7, 12))));
}

INSTANTIATE_TEST_SUITE_P(Memory, HiddenStatesTest, testing::Values(std::size_t{1} << 30, 5 * 8 * 2, 0));

TEST(HiddenStates, LeaveNoFileBehindAndNameAPlaceThatCannotBeWritten) {
    const auto directory = fs::path(testing::TempDir()) / "mha2mla_hidden_states";
    fs::remove_all(directory);
    fs::create_directory(directory);
    HiddenStates hidden({.memory_bytes = 0, .spill_directory = directory});
    hidden.append(states(3, 0));
    EXPECT_TRUE(fs::is_empty(directory));
    HiddenStates nowhere({.memory_bytes = 0, .spill_directory = directory / "missing"});
    try {
        nowhere.append(states(3, 0));
        FAIL() << "no error";
    } catch (const core::Error& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("missing"));
    }
    fs::remove_all(directory);
}

TEST(HiddenStates, AWindowKeepsItsShape) {
    HiddenStates hidden({});
    hidden.append(states(3, 0));
    EXPECT_THROW(hidden.replace(0, states(4, 0)), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::calibrate
