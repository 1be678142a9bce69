#pragma once

#include <map>
#include <string>

#include "checkpoint/gguf_vocabulary.h"
#include "checkpoint/model_config.h"
#include "core/json.h"

namespace mha2mla::checkpoint {

/// The tokenizer.json that Hugging Face's tokenizers would have for this vocabulary: byte-level BPE of the known
/// pre-tokenizers, or byte-fallback BPE whose merges are rebuilt from pieces and scores. `where` names the file in
/// errors.
core::OrderedJson make_tokenizer_json(const GgufVocabulary& vocabulary, const std::string& where);

/// tokenizer.json, tokenizer_config.json and generation_config.json, by name.
std::map<std::string, std::string> make_tokenizer_files(const GgufVocabulary& vocabulary, const ModelConfig& config,
                                                        const std::string& where);

}  // namespace mha2mla::checkpoint
