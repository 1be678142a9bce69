#pragma once

#include "eval/choice_question.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::eval {

/// A choice in tokens as lm-evaluation-harness splits it: spaces that end the context go to the continuation; both are
/// encoded as one text, and what is longer than the context's own encoding is the continuation. A context without
/// tokens becomes the token that begins a text, `bos`. Throws Error, naming `where`, for a continuation without tokens.
TokenChoice encode(const Choice& choice, const tokenizer::Tokenizer& words, int bos, const std::string& where);

}  // namespace mha2mla::eval
