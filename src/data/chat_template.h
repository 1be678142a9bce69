#pragma once

#include <map>
#include <string>
#include <string_view>

namespace mha2mla::data {

/// How a chat model wants one message of a user: the message between two texts, the second of which begins the
/// answer. A model's template is a program (Jinja); we do not run it but know a few families by their markers, as
/// llama.cpp does. BOS is not part of it: the tokenizer adds it. Llama 3.1's dates are left out.
struct ChatTemplate {
    std::string name = "none";  ///< none, chatml, llama2, llama3 or mistral
    std::string before = {};    ///< with the default system prompt where the template has one (ChatML)
    std::string after = {};
    std::string end = {};  ///< the token that ends an answer, as the vocabulary spells it; empty: EOS alone
    bool strips = false;   ///< white space around the message is dropped

    std::string wrap(std::string_view message) const;
};

/// The Jinja text among a checkpoint's tokenizer files (Checkpoint::tokenizer_files()): chat_template.jinja, else the
/// field of tokenizer_config.json, of several the one named "default"; "" where there is none. Throws Error for what
/// is no template.
std::string chat_template_text(const std::map<std::string, std::string>& tokenizer_files);

/// The template by its name, or with "auto" by the markers in a model's Jinja text; none where that is empty. Throws
/// Error for another name, and with "auto" for a text without known markers.
ChatTemplate chat_template(const std::string& name, std::string_view jinja);

}  // namespace mha2mla::data
