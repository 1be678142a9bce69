#include "data/chat_template.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"

namespace mha2mla::data {
namespace {

// What the published templates print for one message of a user, with add_generation_prompt.

constexpr const char* smollm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt "
    "%}{{ '<|im_start|>assistant\\n' }}{% endif %}";
constexpr const char* smollm2_prompt =
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\n";

TEST(ChatTemplate, ChatMlKeepsTheTemplatesSystemPrompt) {
    EXPECT_EQ(chat_template("auto", smollm2).wrap("Hi "), smollm2_prompt);
    std::string with_line_breaks = smollm2;  // as GGUF files have it
    for (std::size_t at; (at = with_line_breaks.find("\\n")) != std::string::npos;)
        with_line_breaks.replace(at, 2, "\n");
    EXPECT_EQ(chat_template("auto", with_line_breaks).wrap("Hi "), smollm2_prompt);
}

TEST(ChatTemplate, ChatMlWithoutASystemPromptHasNone) {
    const auto chat =
        chat_template("auto",
                      "{{ '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}{{ '<|im_start|>' + role + "
                      "'\\n' + content + '<|im_end|>' }}");
    EXPECT_EQ(chat.name, "chatml");
    EXPECT_EQ(chat.wrap("Hi"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(chat_template("chatml", "").wrap("Hi"), chat.wrap("Hi"));
}

TEST(ChatTemplate, TellsTheBracketsApart) {
    const auto llama2 =
        chat_template("auto", "{% set s = '<<SYS>>' %}{{ bos + '[INST] ' + content.strip() + ' [/INST]' }}");
    EXPECT_EQ(llama2.name, "llama2");
    EXPECT_EQ(llama2.wrap("\n Hi "), "[INST] Hi [/INST]");
    const auto mistral = chat_template("auto", "{{ bos + '[INST] ' + content + ' [/INST]' }}");
    EXPECT_EQ(mistral.name, "mistral");
    EXPECT_EQ(mistral.wrap(" Hi"), "[INST]  Hi [/INST]");
    EXPECT_EQ(chat_template("auto", "{{ '[INST] ' + content + '[/INST]' }}").wrap("Hi"), "[INST] Hi[/INST]");
}

TEST(ChatTemplate, Llama3HasHeaders) {
    EXPECT_EQ(
        chat_template("auto", "{{ '<|start_header_id|>' + role }}").wrap("Hi "),
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(ChatTemplate, WithoutATemplateThePromptStays) {
    EXPECT_EQ(chat_template("auto", "").wrap(" Hi "), " Hi ");
    EXPECT_EQ(chat_template("none", smollm2).wrap("Hi"), "Hi");
}

TEST(ChatTemplate, UnknownOnesAreErrors) {
    EXPECT_THROW(chat_template("auto", "{{ '<start_of_turn>' }}"), core::Error);
    EXPECT_THROW(chat_template("alpaca", ""), core::Error);
}

TEST(ChatTemplate, IsFoundInEitherFile) {
    const auto config = [](const core::Json& value) { return core::Json{{"chat_template", value}}.dump(); };
    EXPECT_EQ(chat_template_text({}), "");
    EXPECT_EQ(chat_template_text({{"tokenizer_config.json", "{}"}}), "");
    EXPECT_EQ(chat_template_text({{"tokenizer_config.json", config("a")}}), "a");
    EXPECT_EQ(chat_template_text({{"tokenizer_config.json", config("a")}, {"chat_template.jinja", "b"}}), "b");
    const core::Json list{{{"name", "tool_use"}, {"template", "a"}}, {{"name", "default"}, {"template", "b"}}};
    EXPECT_EQ(chat_template_text({{"tokenizer_config.json", config(list)}}), "b");
    EXPECT_THROW(chat_template_text({{"tokenizer_config.json", config(3)}}), core::Error);
}

}  // namespace
}  // namespace mha2mla::data
