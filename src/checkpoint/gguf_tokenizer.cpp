#include "checkpoint/gguf_tokenizer.h"

#include <fmt/format.h>

#include "checkpoint/gguf_merges.h"
#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

using core::OrderedJson;

constexpr const char* space_symbol = "\u2581";  // sentencepiece's visible space

/// How a family of byte-level tokenizers prepares text and cuts it into words.
struct PreTokenizer {
    std::string_view gguf_name;
    const char* split = nullptr;  ///< regular expression; nullptr: that of ByteLevel itself (GPT-2)
    bool single_digits = false;
    bool nfc = false;            ///< text is composed first (Unicode NFC)
    bool ignore_merges = false;  ///< a word that is a token is taken whole
};

// As in the tokenizer.json files of meta-llama/Meta-Llama-3-8B and Qwen/Qwen2-7B; they differ in the digits alone.
constexpr const char* llama3_split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* qwen2_split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr PreTokenizer pre_tokenizers[] = {{.gguf_name = "gpt-2"},
                                           {.gguf_name = "smollm", .single_digits = true},
                                           {.gguf_name = "llama-bpe", .split = llama3_split, .ignore_merges = true},
                                           {.gguf_name = "llama3", .split = llama3_split, .ignore_merges = true},
                                           {.gguf_name = "qwen2", .split = qwen2_split, .nfc = true}};

const PreTokenizer& find_pre_tokenizer(std::string_view name, const std::string& where) {
    for (const auto& known : pre_tokenizers) {
        if (known.gguf_name == name) return known;
    }
    throw core::Error(
        {.what = fmt::format("pre-tokenizer {} (metadata key 'tokenizer.ggml.pre') is not supported", quoted(name)),
         .expected = "'gpt-2', 'smollm', 'llama-bpe' or 'qwen2'",
         .where = where});
}

OrderedJson byte_level(bool add_prefix_space, bool use_regex) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", add_prefix_space},
            {"trim_offsets", true},
            {"use_regex", use_regex}};
}

OrderedJson pre_tokenizer_json(const PreTokenizer& pre) {
    auto steps = OrderedJson::array();
    if (pre.single_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    if (pre.split != nullptr) {
        steps.push_back(
            {{"type", "Split"}, {"pattern", {{"Regex", pre.split}}}, {"behavior", "Isolated"}, {"invert", false}});
    }
    if (steps.empty()) return byte_level(false, true);
    steps.push_back(byte_level(false, pre.split == nullptr));
    return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

OrderedJson added_tokens_json(const GgufVocabulary& vocabulary) {
    auto tokens = OrderedJson::array();
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
        const auto type = vocabulary.types[id];
        const bool special = type == TokenType::control || type == TokenType::unknown;
        if (!special && type != TokenType::user_defined) continue;
        tokens.push_back({{"id", id},
                          {"content", vocabulary.tokens[id]},
                          {"single_word", false},
                          {"lstrip", false},
                          {"rstrip", false},
                          {"normalized", false},
                          {"special", special}});
    }
    return tokens;
}

OrderedJson vocab_json(const GgufVocabulary& vocabulary) {
    OrderedJson::object_t vocab;
    vocab.reserve(vocabulary.tokens.size());
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
        // The vector below the ordered map: its own insertion would search all earlier tokens, known to be different.
        vocab.Container::emplace_back(std::string(vocabulary.tokens[id]), id);
    }
    return vocab;
}

/// BOS, the text, EOS: for one text (A) or a pair (A, B).
OrderedJson post_processor_json(const GgufVocabulary& vocabulary) {
    if (!vocabulary.add_bos && !vocabulary.add_eos) return nullptr;
    auto special_tokens = OrderedJson::object();
    const auto special = [&](OrderedJson& sequence, int id, int type_id) {
        const std::string token(vocabulary.token(id));
        sequence.push_back({{"SpecialToken", {{"id", token}, {"type_id", type_id}}}});
        special_tokens[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
    };
    const auto append = [&](OrderedJson& sequence, const char* text, int type_id) {
        if (vocabulary.add_bos) special(sequence, *vocabulary.bos, type_id);
        sequence.push_back({{"Sequence", {{"id", text}, {"type_id", type_id}}}});
        if (vocabulary.add_eos) special(sequence, *vocabulary.eos, type_id);
    };
    auto single = OrderedJson::array();
    append(single, "A", 0);
    auto pair = single;
    append(pair, "B", 1);
    return {{"type", "TemplateProcessing"},
            {"single", std::move(single)},
            {"pair", std::move(pair)},
            {"special_tokens", std::move(special_tokens)}};
}

struct ModelOptions {
    OrderedJson unk_token;  ///< null where every text has tokens
    bool byte_fallback = false;
    bool ignore_merges = false;
};

OrderedJson model_json(const GgufVocabulary& vocabulary, const ModelOptions& options, OrderedJson merges) {
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", options.unk_token},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", options.byte_fallback},
            {"byte_fallback", options.byte_fallback},
            {"ignore_merges", options.ignore_merges},
            {"vocab", vocab_json(vocabulary)},
            {"merges", std::move(merges)}};
}

void add_byte_level(OrderedJson& json, const GgufVocabulary& vocabulary, const std::string& where) {
    const auto& pre = find_pre_tokenizer(vocabulary.pre_tokenizer, where);
    json["normalizer"] = pre.nfc ? OrderedJson{{"type", "NFC"}} : OrderedJson(nullptr);
    json["pre_tokenizer"] = pre_tokenizer_json(pre);
    json["post_processor"] = post_processor_json(vocabulary);
    json["decoder"] = byte_level(true, true);
    json["model"] =
        model_json(vocabulary, {.unk_token = nullptr, .ignore_merges = pre.ignore_merges}, vocabulary.merges);
}

void add_byte_fallback(OrderedJson& json, const GgufVocabulary& vocabulary, const std::string& where) {
    auto normalizers = OrderedJson::array();
    if (vocabulary.add_space_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", space_symbol}});
    normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space_symbol}});
    auto decoders = OrderedJson::array();
    decoders.push_back({{"type", "Replace"}, {"pattern", {{"String", space_symbol}}}, {"content", " "}});
    decoders.push_back({{"type", "ByteFallback"}});
    decoders.push_back({{"type", "Fuse"}});
    if (vocabulary.add_space_prefix) {
        decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    }
    json["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
    json["pre_tokenizer"] = nullptr;
    json["post_processor"] = post_processor_json(vocabulary);
    json["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
    const OrderedJson unknown = vocabulary.unknown ? OrderedJson(vocabulary.token(*vocabulary.unknown)) : nullptr;
    json["model"] =
        model_json(vocabulary, {.unk_token = unknown, .byte_fallback = true}, rebuild_merges(vocabulary, where));
}

std::string tokenizer_config_json(const GgufVocabulary& vocabulary, const ModelConfig& config) {
    OrderedJson json{{"add_bos_token", vocabulary.add_bos},
                     {"add_eos_token", vocabulary.add_eos},
                     {"clean_up_tokenization_spaces", false},
                     {"model_max_length", config.max_position_embeddings},
                     {"tokenizer_class", "PreTrainedTokenizerFast"}};
    const auto add = [&](const char* key, std::optional<int> id) {
        if (id) json[key] = vocabulary.token(*id);
    };
    add("bos_token", vocabulary.bos);
    add("eos_token", vocabulary.eos);
    add("unk_token", vocabulary.unknown);
    add("pad_token", vocabulary.padding);
    if (vocabulary.chat_template) json["chat_template"] = *vocabulary.chat_template;
    return json.dump(2);
}

std::string generation_config_json(const GgufVocabulary& vocabulary) {
    auto json = OrderedJson::object();
    if (vocabulary.bos) json["bos_token_id"] = *vocabulary.bos;
    const auto ends = vocabulary.end_ids();
    if (ends.size() == 1) json["eos_token_id"] = ends[0];
    if (ends.size() > 1) json["eos_token_id"] = ends;
    if (vocabulary.padding) json["pad_token_id"] = *vocabulary.padding;
    return json.dump(2);
}

}  // namespace

OrderedJson make_tokenizer_json(const GgufVocabulary& vocabulary, const std::string& where) {
    OrderedJson json{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
    json["added_tokens"] = added_tokens_json(vocabulary);
    vocabulary.model == "gpt2" ? add_byte_level(json, vocabulary, where) : add_byte_fallback(json, vocabulary, where);
    return json;
}

std::map<std::string, std::string> make_tokenizer_files(const GgufVocabulary& vocabulary, const ModelConfig& config,
                                                        const std::string& where) {
    return {{"tokenizer.json", make_tokenizer_json(vocabulary, where).dump()},
            {"tokenizer_config.json", tokenizer_config_json(vocabulary, config)},
            {"generation_config.json", generation_config_json(vocabulary)}};
}

}  // namespace mha2mla::checkpoint
