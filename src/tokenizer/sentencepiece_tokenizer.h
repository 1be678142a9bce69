#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/special_ids.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {

/// A sentencepiece model. BOS is added by default where the model has one, EOS is not; `rules` may say otherwise.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string_view bytes, SpecialRules rules,
                                                        const std::string& where);

}  // namespace mha2mla::tokenizer
