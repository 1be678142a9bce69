#include "core/json.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace mha2mla::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Action>
std::string error_of(Action action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

std::string parse_error(const std::string& text) {
    return error_of([&] { parse_json(text, "file.json"); });
}

TEST(ParseJson, RefusesWhatIsNotOneCleanValue) {
    EXPECT_EQ(parse_error(R"({"a": [1, 2.5, "x", null, true]})"), "");
    EXPECT_THAT(parse_error(""), HasSubstr("file.json: not valid JSON"));
    EXPECT_THAT(parse_error("{} x"), HasSubstr("not valid JSON"));
    EXPECT_THAT(parse_error(R"({"a": 1e999})"), HasSubstr("not valid JSON"));
    EXPECT_THAT(parse_error("\"\xff\""), HasSubstr("not valid JSON"));
    EXPECT_THAT(parse_error(R"({"a": 1, "b": {"a": 2, "a": 3}})"), HasSubstr("JSON key 'a' appears twice"));
    EXPECT_EQ(parse_error(R"([{"a": 1}, {"a": 2}])"), "") << "the same key in two objects is fine";
}

TEST(ParseJson, BoundsTheDepth) {
    EXPECT_EQ(parse_error(std::string(60, '[') + std::string(60, ']')), "");
    EXPECT_THAT(parse_error(std::string(100, '[') + std::string(100, ']')), HasSubstr("JSON is nested too deeply"));
    EXPECT_THAT(parse_error(std::string(1'000'000, '[')), HasSubstr("JSON is nested too deeply"));
}

class JsonObjectTest : public ::testing::Test {
protected:
    Json json_ = Json::parse(R"({"i": 7, "n": -2.5, "b": true, "s": "text", "list": [1, 2], "o": {"x": 1},
                                 "null": null, "big": 18446744073709551615, "mixed": [1, "2"]})");
    JsonObject object_{json_, "file.json"};
};

TEST_F(JsonObjectTest, ReadsFields) {
    EXPECT_EQ(object_.integer("i", 0, 7), 7);
    EXPECT_EQ(object_.number("n"), -2.5);
    EXPECT_EQ(object_.number("i"), 7);
    EXPECT_TRUE(object_.boolean("b"));
    EXPECT_EQ(object_.string("s"), "text");
    EXPECT_THAT(object_.integers("list", 1, 2), ElementsAre(1, 2));
    EXPECT_EQ(object_.object("o").integer("x", 1, 1), 1);
    EXPECT_TRUE(object_.has("i"));
    EXPECT_FALSE(object_.has("null"));
    EXPECT_FALSE(object_.has("absent"));
}

TEST_F(JsonObjectTest, FallsBackWhereAFieldIsAbsentOrNull) {
    EXPECT_EQ(object_.integer_or("absent", 3, 0, 9), 3);
    EXPECT_EQ(object_.number_or("null", 0.5), 0.5);
    EXPECT_TRUE(object_.boolean_or("absent", true));
    EXPECT_EQ(object_.string_or("null", "x"), "x");
    EXPECT_EQ(object_.integer_or("i", 3, 0, 9), 7);
}

TEST_F(JsonObjectTest, NamesFileFieldExpectedAndGot) {
    EXPECT_EQ(error_of([&] { object_.integer("i", 8, 9); }),
              "file.json: field 'i' is not usable, expected an integer from 8 to 9, got 7");
    EXPECT_THAT(error_of([&] { object_.integer("n", -9, 9); }), HasSubstr("got -2.5"));
    EXPECT_THAT(error_of([&] { object_.integer("big", 0, INT64_MAX); }), HasSubstr("field 'big' is not usable"));
    EXPECT_THAT(error_of([&] { object_.integer("absent", 0, 9); }), HasSubstr("field 'absent' is missing"));
    EXPECT_THAT(error_of([&] { object_.number("s"); }), HasSubstr("expected a finite number, got \"text\""));
    EXPECT_THAT(error_of([&] { object_.boolean("i"); }), HasSubstr("expected true or false"));
    EXPECT_THAT(error_of([&] { object_.string("i"); }), HasSubstr("expected a string"));
    EXPECT_THAT(error_of([&] { object_.integers("mixed", 0, 9); }), HasSubstr("field 'mixed' is not usable"));
    EXPECT_THAT(error_of([&] { object_.integers("i", 0, 9); }), HasSubstr("expected an array of integers"));
    EXPECT_THAT(error_of([&] { object_.object("i"); }), HasSubstr("file.json, 'i': not a JSON object, got number"));
    EXPECT_THAT(error_of([&] { object_.integer_or("s", 1, 0, 9); }), HasSubstr("field 's' is not usable"));
}

TEST_F(JsonObjectTest, ShortensWhatItQuotes) {
    json_["s"] = std::string(100'000, 'x');
    EXPECT_LT(error_of([&] { object_.boolean("s"); }).size(), 200u);
}

}  // namespace
}  // namespace mha2mla::core
