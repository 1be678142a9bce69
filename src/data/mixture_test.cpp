#include "data/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>
#include <set>

#include "core/error.h"

namespace mha2mla::data {
namespace {

using testing::HasSubstr;

/// Tokens that say where they stand: first, first + 1, ...
TokenStream counting(const std::string& name, int first, int count) {
    TokenStream text{name, std::vector<int>(static_cast<std::size_t>(count))};
    std::iota(text.tokens.begin(), text.tokens.end(), first);
    return text;
}

std::string error_of(const std::vector<TokenStream>& texts, const MixOptions& options) {
    try {
        mix_windows(texts, options);
    } catch (const core::Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(MixWindows, AreWholeWindowsOneFromEachEqualPart) {
    const auto windows = mix_windows({counting("a", 0, 1000)}, {.windows = 10, .window = 40, .seed = 3});
    ASSERT_EQ(windows.size(), 10u);
    std::set<int> offsets;
    for (int part = 0; part < 10; ++part) {
        const auto& window = windows[static_cast<std::size_t>(part)];
        ASSERT_EQ(window.size(), 40u);
        EXPECT_EQ(window, counting("", window[0], 40).tokens);
        EXPECT_GE(window.front(), 100 * part);
        EXPECT_LT(window.back(), 100 * (part + 1));
        offsets.insert(window.front() - 100 * part);
    }
    EXPECT_GT(offsets.size(), 3u) << "the seed moves each in its part";
}

TEST(MixWindows, ATextThatJustSufficesIsTakenWhole) {
    const auto windows = mix_windows({counting("a", 0, 12)}, {.windows = 3, .window = 4});
    EXPECT_THAT(windows, testing::ElementsAre(testing::ElementsAre(0, 1, 2, 3), testing::ElementsAre(4, 5, 6, 7),
                                              testing::ElementsAre(8, 9, 10, 11)));
    EXPECT_EQ(mix_windows({counting("a", 0, 13)}, {.windows = 9, .window = 4}).size(), 3u);
}

TEST(MixWindows, TextsTakeTurnsAndGiveAlike) {
    const auto windows = mix_windows({counting("a", 0, 900), counting("b", 10'000, 90), counting("c", 20'000, 900)},
                                     {.windows = 6, .window = 10});
    std::vector<int> sources;
    for (const auto& window : windows) sources.push_back(window[0] / 10'000);
    EXPECT_THAT(sources, testing::ElementsAre(0, 1, 2, 0, 1, 2));
}

TEST(MixWindows, OthersGiveWhatAShortTextLacks) {
    const auto windows = mix_windows({counting("a", 0, 15), counting("b", 10'000, 900)}, {.windows = 6, .window = 10});
    std::vector<int> sources;
    for (const auto& window : windows) sources.push_back(window[0] / 10'000);
    EXPECT_THAT(sources, testing::ElementsAre(0, 1, 1, 1, 1, 1));
}

TEST(MixWindows, TheSeedDecides) {
    const std::vector<TokenStream> texts{counting("a", 0, 5000)};
    const MixOptions options{.windows = 8, .window = 16, .seed = 1};
    EXPECT_EQ(mix_windows(texts, options), mix_windows(texts, options));
    EXPECT_NE(mix_windows(texts, options), mix_windows(texts, {.windows = 8, .window = 16, .seed = 2}));
}

TEST(MixWindows, NamesATextThatIsTooShortAndTooManyTexts) {
    const MixOptions options{.windows = 2, .window = 10};
    EXPECT_THAT(error_of({counting("long.txt", 0, 100), counting("short.txt", 0, 9)}, options),
                testing::AllOf(HasSubstr("short.txt"), HasSubstr("at least 10 tokens"), HasSubstr("got 9")));
    const auto text = counting("a", 0, 100);
    EXPECT_THAT(error_of({text, text, text}, options),
                testing::AllOf(HasSubstr("--calibration-windows"), HasSubstr("3")));
}

}  // namespace
}  // namespace mha2mla::data
