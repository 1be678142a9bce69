#include "data/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::data {
namespace {

using testing::HasSubstr;

std::vector<std::string> texts(const std::string& file) {
    std::vector<std::string> texts;
    for (const auto& prompt : parse_prompts(file, "p")) texts.push_back(prompt.text);
    return texts;
}

std::string message_of(const std::string& file) {
    try {
        parse_prompts(file, "p");
    } catch (const core::Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(Prompts, AreLines) {
    EXPECT_EQ(texts("one \n\n  \ntwo\r\nthree"), (std::vector<std::string>{"one ", "two", "three"}));
    EXPECT_EQ(parse_prompts("\n\nx\n", "p").front().where, "p, line 3");
}

TEST(Prompts, AreFieldsOfJsonLines) {
    EXPECT_EQ(texts("{\"prompt\": \"a\\nb\", \"id\": 3}\n\n{\"prompt\": \"{\"}\n"),
              (std::vector<std::string>{"a\nb", "{"}));
}

TEST(Prompts, BadLinesAreNamed) {
    EXPECT_THAT(message_of("{\"prompt\": \"a\"}\n{\"text\": \"b\"}"), HasSubstr("p, line 2"));
    EXPECT_THAT(message_of("{\"prompt\": \"a\"}\nb"), HasSubstr("p, line 2"));
    EXPECT_THAT(message_of("{\"prompt\": \"\"}"), HasSubstr("p, line 1"));
    EXPECT_THAT(message_of("a\n\xff\n"), HasSubstr("p, line 2"));
    EXPECT_THAT(message_of(" \n"), HasSubstr("no prompts"));
    EXPECT_THAT(message_of(""), HasSubstr("no prompts"));
}

TEST(Prompts, AMissingFileIsNamed) { EXPECT_THROW(read_prompts("no/such/file"), core::Error); }

}  // namespace
}  // namespace mha2mla::data
