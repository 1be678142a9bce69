#include "checkpoint/model_config.h"

#include <gmock/gmock.h>

#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

using test::error_of;
using test::tiny_config;
using test::tiny_config_json;
using test::tiny_mla_config;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string parse_error(const core::Json& json) {
    return error_of([&] { parse_config(json, "config.json"); });
}

TEST(ModelConfig, ReadsEveryField) {
    auto json = tiny_config_json();
    json["attention_bias"] = json["mlp_bias"] = json["tie_word_embeddings"] = true;
    json["eos_token_id"] = {2, 5};
    const auto config = parse_config(json, "config.json");
    EXPECT_EQ(config.model_type, "llama");
    EXPECT_EQ(config.vocab_size, 16);
    EXPECT_EQ(config.hidden_size, 12);
    EXPECT_EQ(config.intermediate_size, 10);
    EXPECT_EQ(config.num_hidden_layers, 2);
    EXPECT_EQ(config.num_attention_heads, 4);
    EXPECT_EQ(config.num_key_value_heads, 2);
    EXPECT_EQ(config.head_dim, 8);
    EXPECT_EQ(config.max_position_embeddings, 64);
    EXPECT_EQ(config.rms_norm_eps, 1e-5);
    EXPECT_EQ(config.rope_theta, 10000);
    EXPECT_FALSE(config.rope_scaling);
    EXPECT_TRUE(config.attention_bias && config.mlp_bias && config.tie_word_embeddings);
    EXPECT_EQ(config.bos_token_id, 1);
    EXPECT_THAT(config.eos_token_ids, ElementsAre(2, 5));
    EXPECT_FALSE(config.is_mla());
    EXPECT_EQ(config.cached_elements(0), 2 * 2 * 8);
}

TEST(ModelConfig, FillsInTransformersDefaults) {
    auto json = tiny_config_json();
    for (const auto* key : {"num_key_value_heads", "head_dim", "rope_theta", "bos_token_id", "eos_token_id"}) {
        json.erase(key);
    }
    json["hidden_size"] = 24;
    const auto config = parse_config(json, "config.json");
    EXPECT_EQ(config.num_key_value_heads, 4);
    EXPECT_EQ(config.head_dim, 6);
    EXPECT_EQ(config.rope_theta, 10000);
    EXPECT_FALSE(config.bos_token_id);
    EXPECT_TRUE(config.eos_token_ids.empty());
}

TEST(ModelConfig, ReadsBothSpellingsOfRope) {
    const core::Json scaling = {
        {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 32}};
    const Llama3RopeScaling expected{8, 1, 4, 32};
    for (const auto* type_key : {"type", "rope_type"}) {
        auto json = tiny_config_json();
        json["rope_scaling"] = scaling;
        json["rope_scaling"][type_key] = "llama3";
        EXPECT_EQ(parse_config(json, "config.json").rope_scaling, expected) << type_key;
    }
    auto json = tiny_config_json();
    json.erase("rope_theta");
    json["rope_parameters"] = scaling;
    json["rope_parameters"]["rope_type"] = "llama3";
    json["rope_parameters"]["rope_theta"] = 5e5;
    EXPECT_EQ(parse_config(json, "config.json").rope_scaling, expected);
    EXPECT_EQ(parse_config(json, "config.json").rope_theta, 5e5);

    json["rope_theta"] = 1e4;
    EXPECT_THAT(parse_error(json), HasSubstr("'rope_theta' is not usable, expected the value of rope_parameters"));
}

TEST(ModelConfig, MistralNeedsToSeeItsWholeContext) {
    auto json = tiny_config_json();
    json["model_type"] = "mistral";
    for (const auto& window : {core::Json(nullptr), core::Json(64), core::Json(4096)}) {
        json["sliding_window"] = window;
        EXPECT_EQ(parse_config(json, "config.json").model_type, "mistral");
    }
    json["sliding_window"] = 63;
    EXPECT_THAT(parse_error(json), HasSubstr("'sliding_window' is not usable, expected null, or at least "
                                             "max_position_embeddings (64), got 63"));
}

struct BrokenField {
    const char* key;
    const char* value;  // JSON; nullptr erases the field
    const char* message;
};

TEST(ModelConfig, NamesWhatItCannotUse) {
    const BrokenField cases[] = {
        {"model_type", R"("qwen2")", "model type 'qwen2' is not supported, expected 'llama', 'mistral' or 'mha2mla'"},
        {"model_type", nullptr, "field 'model_type' is missing"},
        {"vocab_size", nullptr, "field 'vocab_size' is missing"},
        {"vocab_size", "4194305", "field 'vocab_size' is not usable, expected an integer from 1 to 4194304"},
        {"vocab_size", "16.0", "field 'vocab_size' is not usable"},
        {"hidden_size", "-1", "field 'hidden_size' is not usable"},
        {"intermediate_size", "99999999999999999999", "field 'intermediate_size' is not usable"},
        {"num_hidden_layers", "1025", "field 'num_hidden_layers' is not usable, expected an integer from 1 to 1024"},
        {"num_hidden_layers", "0", "field 'num_hidden_layers' is not usable"},
        {"num_attention_heads", "5000", "field 'num_attention_heads' is not usable"},
        {"num_key_value_heads", "3", "expected a divisor of num_attention_heads (4), got 3"},
        {"num_key_value_heads", "8", "field 'num_key_value_heads' is not usable"},
        {"head_dim", "7", "field 'head_dim' is not usable, expected an even head width from 2 to 1024, got 7"},
        {"head_dim", "2048", "field 'head_dim' is not usable"},
        {"head_dim", "null", "field 'hidden_size' is not usable, expected an even head width"},
        {"max_position_embeddings", "true", "field 'max_position_embeddings' is not usable"},
        {"rms_norm_eps", "0", "field 'rms_norm_eps' is not usable, expected a positive number"},
        {"rms_norm_eps", R"("1e-5")", "field 'rms_norm_eps' is not usable, expected a finite number"},
        {"rope_theta", "-10000", "field 'rope_theta' is not usable"},
        {"rope_scaling", R"({"type": "linear", "factor": 2})", R"(expected "default" or "llama3", got "linear")"},
        {"rope_scaling", R"({"rope_type": "yarn"})", R"(config.json, 'rope_scaling': field 'rope_type' is not usable)"},
        {"rope_scaling", R"({"factor": 2})", "'rope_scaling': field 'rope_type' is missing"},
        {"rope_scaling", R"({"rope_type": "llama3", "factor": 8})", "field 'low_freq_factor' is missing"},
        {"rope_parameters", R"({"rope_type": "dynamic"})", "'rope_parameters': field 'rope_type' is not usable"},
        {"rope_parameters", R"({"rope_type": "default", "partial_rotary_factor": 0.5})", "'partial_rotary_factor'"},
        {"partial_rotary_factor", "0.5", "field 'partial_rotary_factor' is not usable, expected 1, got 0.5"},
        {"rope_interleaved", "true", "field 'rope_interleaved' is not usable, expected false"},
        {"hidden_act", R"("gelu")", R"(field 'hidden_act' is not usable, expected "silu", got "gelu")"},
        {"quantization_config", "{}", "quantized weights ('quantization_config') are not supported"},
        {"tie_word_embeddings", "1", "field 'tie_word_embeddings' is not usable, expected true or false"},
        {"bos_token_id", "16", "field 'bos_token_id' is not usable, expected an integer from 0 to 15"},
        {"eos_token_id", "[2, 16]", "field 'eos_token_id' is not usable"},
        {"eos_token_id", R"("2")", "field 'eos_token_id' is not usable"},
    };
    for (const auto& broken : cases) {
        auto json = tiny_config_json();
        json.erase(broken.key);
        if (broken.value != nullptr) json[broken.key] = core::Json::parse(broken.value);
        const auto message = parse_error(json);
        EXPECT_THAT(message, HasSubstr(broken.message)) << broken.key;
        EXPECT_THAT(message, HasSubstr("config.json")) << broken.key;
    }
}

TEST(ModelConfig, NamesWhatItCannotUseInTheMlaObject) {
    const BrokenField cases[] = {
        {"format", "2", "'mla': field 'format' is not usable, expected 1, got 2"},
        {"format", nullptr, "field 'format' is missing"},
        {"kv_lora_rank", "[5]", "field 'kv_lora_rank' has the wrong length, expected 2 (num_hidden_layers), got 1"},
        {"kv_lora_rank", "[5, 0]", "field 'kv_lora_rank' is not usable"},
        {"kv_lora_rank", "[5, 65537]", "field 'kv_lora_rank' is not usable"},
        {"qk_rope_head_dim", "[4, 3]", "field 'qk_rope_head_dim' is not usable, expected even numbers"},
        {"qk_rope_head_dim", "[4, 18]", "field 'qk_rope_head_dim' is not usable"},
        {"qk_nope_head_dim", "[4, 4]", "field 'qk_nope_head_dim' is not usable, expected 6 in layer 1"},
        {"v_head_dim", "6", "field 'v_head_dim' is not usable, expected head_dim (8), got 6"},
        {"num_rope_key_heads", "3",
         "num_rope_key_heads 3 (neither 1 nor num_key_value_heads 2) is a part of format 1 "
         "that this version does not run"},
        {"rope_pairs", "[[[0, 2], [3, 4]], [[2], [0]]]",
         "field 'rope_pairs' is not usable, expected 2 integers from 0 to 3"},
        {"rope_pairs", "[[[0, 2], [3, -1]], [[2], [0]]]", "field 'rope_pairs' is not usable"},
        {"rope_pairs", "[[[0, 2], [3]], [[2], [0]]]", "field 'rope_pairs' is not usable"},
        {"rope_pairs", "[[[0, 2], [3, 18446744073709551615]], [[2], [0]]]", "field 'rope_pairs' is not usable"},
        {"rope_pairs", "[[[0, 2]], [[2]]]", "expected 2 lists in each layer, one per rotary key head"},
        {"rope_pairs", "[[[0, 2], [3, 1]]]", "field 'rope_pairs' is not usable, expected one list per layer"},
        {"rope_pairs", "[[[2, 2], [3, 1]], [[2], [0]]]", "no pair twice in a head"},
        {"rope_pairs", "7", "field 'rope_pairs' is not usable"},
        {"latent_groups", "2",
         "field 'latent_groups' is not usable, expected a divisor of every kv_lora_rank, 5 among"},
        {"latent_groups", "3", "field 'latent_groups' is not usable, expected an integer from 1 to 2"},
        {"latent_groups", "0", "field 'latent_groups' is not usable"},
        {"nope_pairs", R"("some")", R"(field 'nope_pairs' is not usable, expected "all" or "unrotated", got "some")"},
        {"nope_pairs", R"("all")", "field 'qk_nope_head_dim' is not usable, expected 8 in layer 0"},
        {"positional_part", "1", "field 'positional_part' is not usable"},
        {"sink_tokens", "4", "field 'sink_tokens' is not usable, expected 0 where positional_part is false, got 4"},
        {"sink_tokens", "65", "field 'sink_tokens' is not usable"},
        {"softmax_scale", "0.1", "field 'softmax_scale' is not usable, expected 1/sqrt(head_dim)"},
        {"source_model_type", R"("qwen2")", "field 'source_model_type' is not usable"},
        {"k_mean_scale", "1", "unknown field 'k_mean_scale'"},
    };
    const core::Json good = core::Json(config_to_json(tiny_mla_config(), {}));
    ASSERT_EQ(parse_error(good), "");
    for (const auto& broken : cases) {
        auto json = good;
        json["mla"].erase(broken.key);
        if (broken.value != nullptr) json["mla"][broken.key] = core::Json::parse(broken.value);
        const auto message = parse_error(json);
        EXPECT_THAT(message, HasSubstr(broken.message)) << broken.key;
        EXPECT_THAT(message, HasSubstr("config.json, 'mla'")) << broken.key;
    }
}

ModelConfig shared_key_config() {
    auto config = tiny_mla_config();
    auto& mla = std::get<MlaConfig>(config.attention);
    mla.num_rope_key_heads = 1;
    mla.qk_rope_head_dim = {6, 0};
    mla.qk_nope_head_dim = {8, 8};
    mla.rope_pairs = {{{2, 2, 0}}, {{}}};
    mla.nope_pairs = NopePairs::all;
    return config;
}

TEST(ModelConfig, LatentGroupsDivideTheHeadsAndNeedRotaryKeysOfTheirOwn) {
    const auto error_of = [](ModelConfig config, int kv_heads) {
        config.num_key_value_heads = kv_heads;
        std::get<MlaConfig>(config.attention).kv_lora_rank = {6, 12};
        std::get<MlaConfig>(config.attention).latent_groups = 2;
        return parse_error(core::Json(config_to_json(config, {})));
    };
    EXPECT_EQ(error_of(tiny_mla_config(), 2), "");
    EXPECT_THAT(error_of(shared_key_config(), 2), HasSubstr("expected 1 where the heads share one rotary key"));
    EXPECT_THAT(error_of(shared_key_config(), 1), HasSubstr("'latent_groups' is not usable, expected an integer from"));
    auto odd = shared_key_config();
    odd.num_attention_heads = 9;
    EXPECT_THAT(error_of(odd, 3), HasSubstr("expected a divisor of num_key_value_heads (3), got 2"));
}

TEST(ModelConfig, RefusesAModellingFileBesideTheMlaObject) {
    core::Json json(config_to_json(tiny_mla_config(), {}));
    json["auto_map"] = {{"AutoModelForCausalLM", "modeling_mha2mla.Mha2MlaForCausalLM"}};
    EXPECT_THAT(parse_error(json), HasSubstr("field 'auto_map' is not usable"));
}

ModelConfig busy_config() {
    auto config = tiny_config();
    config.rope_scaling = Llama3RopeScaling{8, 1.5, 4, 32};
    config.rope_theta = 123456.789;
    config.eos_token_ids = {3, 4};
    config.bos_token_id.reset();
    config.tie_word_embeddings = config.attention_bias = config.mlp_bias = true;
    return config;
}

TEST(ModelConfig, RoundTripsThroughJson) {
    auto mistral = tiny_config();
    mistral.model_type = "mistral";
    mistral.eos_token_ids.clear();
    const core::Json new_style = {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1.0}}}};
    auto grouped = tiny_mla_config();
    std::get<MlaConfig>(grouped.attention).kv_lora_rank = {6, 12};
    std::get<MlaConfig>(grouped.attention).latent_groups = 2;
    for (const auto& config :
         {tiny_config(), busy_config(), mistral, tiny_mla_config(), shared_key_config(), grouped}) {
        for (const auto& source : {core::Json(), tiny_config_json(), new_style}) {
            const auto text = config_to_json(config, source).dump(2);
            EXPECT_EQ(parse_config(core::parse_json(text, "written"), "written"), config) << text;
        }
    }
}

TEST(ModelConfig, WritesAnMlaConfigOverTheSourcesFields) {
    auto source = tiny_config_json();
    source["auto_map"] = {{"AutoModelForCausalLM", "modeling_other.Other"}};
    const auto json = config_to_json(tiny_mla_config(), source);
    EXPECT_EQ(json["model_type"], "mha2mla");
    EXPECT_EQ(json["architectures"], core::OrderedJson::array({"Mha2MlaForCausalLM"}));
    EXPECT_EQ(json["torch_dtype"], "float32");
    EXPECT_EQ(json["mla"]["format"], 1);
    EXPECT_EQ(json["mla"]["rope_pairs"].dump(), "[[[0,2],[3,1]],[[2],[0]]]");
    EXPECT_FALSE(json.contains("auto_map"));
}

TEST(MlaConfig, ListsUnrotatedPairsOfEachHead) {
    const auto config = tiny_mla_config();
    EXPECT_THAT(config.mla().unrotated_pairs(0, 0, 4), ElementsAre(1, 3));
    EXPECT_THAT(config.mla().unrotated_pairs(0, 1, 4), ElementsAre(0, 2));
    EXPECT_THAT(config.mla().unrotated_pairs(1, 1, 4), ElementsAre(1, 2, 3));
    EXPECT_THAT(shared_key_config().mla().unrotated_pairs(0, 1, 4), ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(config.cached_elements(0), 5 + 2 * 4);
    EXPECT_EQ(shared_key_config().cached_elements(0), 5 + 6);
}

TEST(RopeFrequencies, EqualTransformers) {
    auto config = tiny_config();
    config.head_dim = 16;
    const auto plain = rope_frequencies(config);
    ASSERT_EQ(plain.size(), 8u);
    for (int pair = 0; pair < 8; ++pair)
        EXPECT_NEAR(plain[static_cast<std::size_t>(pair)], std::pow(10, -0.5 * pair), 1e-15);

    // transformers' LlamaRotaryEmbedding in float32, rope_theta 10000, llama3 scaling as below.
    config.rope_scaling = Llama3RopeScaling{8, 1, 4, 1024};
    const double expected[] = {1.0,
                               0.3162277638912201,
                               0.10000000149011612,
                               0.03162277862429619,
                               0.003086760640144348,
                               0.00039528473280370235,
                               0.0001250000059371814,
                               3.9528473280370235e-05};
    const auto scaled = rope_frequencies(config);
    for (std::size_t pair = 0; pair < 8; ++pair) EXPECT_NEAR(scaled[pair] / expected[pair], 1, 3e-7) << pair;
}

}  // namespace
}  // namespace mha2mla::checkpoint
