#include "data/text_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<std::vector<int>> read(const std::string& text) {
    const auto json = core::parse_json(text, "tokens.json");
    return read_windows(core::JsonObject(json, "tokens.json"), "windows", 10);
}

TEST(TextWindows, ReadsWhatWasWritten) {
    const std::vector<std::vector<int>> windows{{0, 9, 3}, {}, {7}};
    EXPECT_EQ(read(core::OrderedJson{{"windows", windows}}.dump()), windows);
    EXPECT_TRUE(read(R"({"windows": []})").empty());
}

TEST(TextWindows, RefusesWhatIsNoTokenOfTheVocabulary) {
    for (const std::string windows : {"[[1, 10]]", "[[-1]]", "[[1.5]]", "[[18446744073709551615]]", "[[4294967297]]",
                                      "[[\"a\"]]", "[1, 2]", "7", "{\"a\": [1]}", "[[[1]]]", "[[true]]"}) {
        try {
            read("{\"windows\": " + windows + "}");
            ADD_FAILURE() << "accepted: " << windows;
        } catch (const core::Error& error) {
            EXPECT_THAT(error.what(), AllOf(HasSubstr("tokens.json"), HasSubstr("'windows'"), HasSubstr("0..9")));
        }
    }
    EXPECT_THROW(read("{}"), core::Error);
}

}  // namespace
}  // namespace mha2mla::data
