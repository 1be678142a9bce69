#include "data/chat_template.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"

namespace mha2mla::data {
namespace {

constexpr const char* names = "auto, none, chatml, llama2, llama3 or mistral";

bool holds(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

/// Jinja strings hold a line break as such or as the two characters \n.
std::string unescaped(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool is_break = text.substr(i, 2) == "\\n";
        result += is_break ? '\n' : text[i];
        if (is_break) ++i;
    }
    return result;
}

/// The system prompt that a ChatML template sets where the user has none: the only one that it spells out.
std::string default_system_prompt(std::string_view jinja) {
    constexpr std::string_view begin = "<|im_start|>system", end = "<|im_end|>";
    for (std::size_t at = jinja.find(begin); at != std::string_view::npos; at = jinja.find(begin, at + 1)) {
        const auto rest = jinja.substr(at + begin.size());
        const auto prompt = unescaped(rest.substr(0, rest.find(end)));
        if (!holds(rest, end) || prompt.size() < 2 || prompt[0] != '\n') continue;
        const bool is_spelled_out = prompt.find_first_of("{}+") == std::string::npos &&
                                    prompt.find("' ") == std::string::npos && prompt.back() != '\'';
        if (is_spelled_out) return std::string(begin) + prompt + std::string(end) + "\n";
    }
    return "";
}

ChatTemplate chatml(std::string_view jinja) {
    return {.name = "chatml",
            .before = default_system_prompt(jinja) + "<|im_start|>user\n",
            .after = "<|im_end|>\n<|im_start|>assistant\n",
            .end = "<|im_end|>"};
}

ChatTemplate llama3() {
    return {.name = "llama3",
            .before = "<|start_header_id|>user<|end_header_id|>\n\n",
            .after = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            .end = "<|eot_id|>",
            .strips = true};
}

/// The templates of different releases differ in one blank.
ChatTemplate mistral(std::string_view jinja) {
    const bool is_tight = holds(jinja, "[/INST]") && !holds(jinja, " [/INST]");
    return {.name = "mistral", .before = "[INST] ", .after = is_tight ? "[/INST]" : " [/INST]"};
}

ChatTemplate recognised(std::string_view jinja) {
    if (jinja.empty()) return {};
    if (holds(jinja, "<|im_start|>")) return chatml(jinja);
    if (holds(jinja, "<|start_header_id|>")) return llama3();
    if (holds(jinja, "[INST]")) return chat_template(holds(jinja, "<<SYS>>") ? "llama2" : "mistral", jinja);
    throw core::Error({.what = "the model's chat template is of no kind that we know",
                       .expected = "ChatML, Llama 2, Llama 3 or Mistral",
                       .where = "chat_template",
                       .remedy = std::string("choose one with --chat: ") + names});
}

std::string default_template(const core::Json& list, const std::string& where) {
    for (const auto& item : list) {
        const core::JsonObject fields(item, where);
        if (fields.string("name") == "default") return fields.string("template");
    }
    return "";
}

}  // namespace

std::string ChatTemplate::wrap(std::string_view message) const {
    constexpr const char* space = " \t\n\r\v\f";
    if (strips) {
        message.remove_prefix(std::min(message.find_first_not_of(space), message.size()));
        message = message.substr(0, message.find_last_not_of(space) + 1);
    }
    return before + std::string(message) + after;
}

std::string chat_template_text(const std::map<std::string, std::string>& tokenizer_files) {
    const auto own_file = tokenizer_files.find("chat_template.jinja");
    if (own_file != tokenizer_files.end()) return own_file->second;
    constexpr const char* where = "tokenizer_config.json";
    constexpr const char* key = "chat_template";
    const auto config = tokenizer_files.find(where);
    if (config == tokenizer_files.end()) return "";
    const auto json = core::parse_json(config->second, where);
    const core::JsonObject fields(json, where);
    if (!fields.has(key)) return "";
    return fields.raw(key).is_array() ? default_template(fields.raw(key), where) : fields.string(key);
}

ChatTemplate chat_template(const std::string& name, std::string_view jinja) {
    if (name == "auto") return recognised(jinja);
    if (name == "none") return {};
    if (name == "chatml") return chatml(jinja);
    if (name == "llama3") return llama3();
    if (name == "mistral") return mistral(jinja);
    if (name == "llama2") return {.name = "llama2", .before = "[INST] ", .after = " [/INST]", .strips = true};
    throw core::Error({.what = "no such chat template", .expected = names, .got = name, .where = "--chat"});
}

}  // namespace mha2mla::data
