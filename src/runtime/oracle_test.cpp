#include "runtime/oracle.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <gtest/gtest.h>
#include <unistd.h>

#include "checkpoint/test_support.h"
#include "core/file.h"
#include "core/json.h"
#include "core/random.h"

namespace mha2mla::runtime::test {
namespace {

using checkpoint::Checkpoint;
using checkpoint::MlaConfig;
using checkpoint::ModelConfig;
using Vector = std::vector<double>;

/// y = W x + b for every row; no bias where `bias` is empty.
Rows apply(const std::vector<float>& weight, const std::vector<float>& bias, const Rows& x) {
    Rows y;
    for (const Vector& row : x) {
        const std::size_t inputs = row.size();
        Vector out(weight.size() / inputs);
        for (std::size_t o = 0; o < out.size(); ++o) {
            out[o] = bias.empty() ? 0 : bias[o];
            for (std::size_t i = 0; i < inputs; ++i) out[o] += double{weight[o * inputs + i]} * row[i];
        }
        y.push_back(out);
    }
    return y;
}

Vector slice(const Vector& x, int first, int count) { return {x.begin() + first, x.begin() + first + count}; }

/// One forward pass.
class Oracle {
public:
    explicit Oracle(const Checkpoint& model)
        : model_(model), config_(model.config()), frequencies_(checkpoint::rope_frequencies(config_)) {}

    Logits run(std::span<const int> tokens) const {
        const auto& head = config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
        return apply(tensor(head, {config_.vocab_size, config_.hidden_size}), {},
                     norm("model.norm.weight", states(tokens).back()));
    }

    /// Before each layer and behind its attention, and what the final norm takes.
    std::vector<Rows> states(std::span<const int> tokens) const {
        std::vector<Rows> all;
        Rows x;
        const auto table = tensor("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size});
        for (const int token : tokens) {
            const float* row = table.data() + static_cast<std::ptrdiff_t>(token) * config_.hidden_size;
            x.emplace_back(row, row + config_.hidden_size);
        }
        for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
            all.push_back(x);
            attend(layer, x);
            all.push_back(x);
            feed_forward(layer, x);
        }
        all.push_back(x);
        return all;
    }

private:
    std::vector<float> tensor(const std::string& name, const checkpoint::Shape& shape) const {
        return model_.read(name, shape);
    }

    Rows linear(const std::string& name, int outputs, const Rows& x) const {
        const auto inputs = static_cast<std::int64_t>(x[0].size());
        const bool biased = model_.has(name + ".bias");
        return apply(tensor(name + ".weight", {outputs, inputs}),
                     biased ? tensor(name + ".bias", {outputs}) : std::vector<float>{}, x);
    }

    Rows norm(const std::string& name, Rows x) const {
        const auto weight = tensor(name, {config_.hidden_size});
        for (Vector& row : x) {
            double squares = 0;
            for (const double value : row) squares += value * value;
            const double scale = 1 / std::sqrt(squares / static_cast<double>(row.size()) + config_.rms_norm_eps);
            for (std::size_t i = 0; i < row.size(); ++i) row[i] *= scale * weight[i];
        }
        return x;
    }

    void attend(int layer, Rows& x) const {
        const auto name = [&](const char* part) { return checkpoint::layer_tensor(layer, part); };
        const Rows attended = attention(layer, norm(name("input_layernorm.weight"), x));
        add(x, linear(name("self_attn.o_proj"), config_.hidden_size, attended));
    }

    void feed_forward(int layer, Rows& x) const {
        const auto name = [&](const char* part) { return checkpoint::layer_tensor(layer, part); };
        const Rows inner = norm(name("post_attention_layernorm.weight"), x);
        Rows gate = linear(name("mlp.gate_proj"), config_.intermediate_size, inner);
        const Rows up = linear(name("mlp.up_proj"), config_.intermediate_size, inner);
        for (std::size_t t = 0; t < gate.size(); ++t) {
            for (std::size_t i = 0; i < up[t].size(); ++i) gate[t][i] *= up[t][i] / (1 + std::exp(-gate[t][i]));
        }
        add(x, linear(name("mlp.down_proj"), config_.hidden_size, gate));
    }

    static void add(Rows& x, const Rows& y) {
        for (std::size_t t = 0; t < x.size(); ++t) {
            for (std::size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
        }
    }

    using Factors = std::vector<std::complex<double>>;  // of pairs; empty: 1

    /// Pairs of a head times their factors, rotated by frequencies of their own at a position: first halves, then
    /// second halves.
    Vector rotated(const Vector& head, const std::vector<int>& pairs, const std::vector<int>& frequencies,
                   std::size_t position, const Factors& factors = {}) const {
        const std::size_t count = pairs.size();
        Vector out(2 * count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto p = static_cast<std::size_t>(pairs[i]);
            const double angle = static_cast<double>(position) * frequencies_[static_cast<std::size_t>(frequencies[i])];
            auto z = std::complex(head[p], head[p + head.size() / 2]) * std::polar(1.0, angle);
            if (!factors.empty()) z *= factors[i];
            out[i] = z.real();
            out[i + count] = z.imag();
        }
        return out;
    }

    static std::vector<int> count_up(int count) {
        std::vector<int> numbers;
        for (int i = 0; i < count; ++i) numbers.push_back(i);
        return numbers;
    }

    /// What softmax attention of one head needs: its queries, the keys and the values.
    struct Parts {
        Rows query, key, value;
    };
    /// The same with the exact parts that apply to the first tokens.
    struct Head {
        Parts rest, sinks;
        std::size_t sink_tokens = 0;
    };

    Rows attention(int layer, const Rows& x) const {
        Rows out(x.size());
        for (int h = 0; h < config_.num_attention_heads; ++h) {
            const Head head =
                config_.is_mla() ? mla_head(layer, h, x) : Head{.rest = full_parts(layer, h, x), .sinks = {}};
            for (std::size_t t = 0; t < x.size(); ++t) {
                const Vector part = softmax_attention(head, t);
                out[t].insert(out[t].end(), part.begin(), part.end());
            }
        }
        return out;
    }

    Vector softmax_attention(const Head& head, std::size_t t) const {
        Vector out(head.rest.value[0].size());
        double sum = 0;
        for (std::size_t s = 0; s <= t; ++s) {
            const Parts& parts = s < head.sink_tokens ? head.sinks : head.rest;
            double logit = 0;
            for (std::size_t i = 0; i < parts.key[s].size(); ++i) logit += parts.query[t][i] * parts.key[s][i];
            const double weight = std::exp(logit / std::sqrt(config_.head_dim));
            sum += weight;
            for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * parts.value[s][i];
        }
        for (double& value : out) value /= sum;
        return out;
    }

    /// Full keys and values: of the source model, and of the sinks of a converted one.
    Parts full_parts(int layer, int h, const Rows& x) const {
        const int d = config_.head_dim;
        const int g = h / config_.group_size();
        const int keys = config_.num_key_value_heads * d;
        const auto pairs = count_up(d / 2);
        const Rows q = linear(name(layer, "q_proj"), config_.num_attention_heads * d, x);
        const Rows k = linear(name(layer, "k_proj"), keys, x);
        const Rows v = linear(name(layer, "v_proj"), keys, x);
        Parts head;
        for (std::size_t t = 0; t < x.size(); ++t) {
            head.query.push_back(rotated(slice(q[t], h * d, d), pairs, pairs, t));
            head.key.push_back(rotated(slice(k[t], g * d, d), pairs, pairs, t));
            head.value.push_back(slice(v[t], g * d, d));
        }
        return head;
    }

    Head mla_head(int layer, int h, const Rows& x) const {
        const auto sink_tokens = static_cast<std::size_t>(config_.mla().sink_tokens);
        Head head{.rest = latent_parts(layer, h, x), .sinks = {}, .sink_tokens = sink_tokens};
        if (config_.mla().positional_part) add_positional_part(layer, h, x, head.rest);
        if (sink_tokens > 0) head.sinks = full_parts(layer, h, x);
        return head;
    }

    /// [H, pairs, 2] of one head; none where the checkpoint has no such tensor.
    Factors factors(const std::string& tensor_name, int pairs, int h) const {
        Factors factors;
        if (!model_.has(tensor_name)) return factors;
        const auto values = tensor(tensor_name, {config_.num_attention_heads, pairs, 2});
        for (int i = h * pairs; i < (h + 1) * pairs; ++i) {
            const auto at = static_cast<std::size_t>(2 * i);
            factors.emplace_back(values[at], values[at + 1]);
        }
        return factors;
    }

    /// q_pos . tau(s) as more columns of queries and keys.
    void add_positional_part(int layer, int h, const Rows& x, Parts& parts) const {
        const int d = config_.head_dim, g = h / config_.group_size();
        const auto pairs = count_up(d / 2);
        const auto k_mean = tensor(name(layer, "k_mean"), {config_.num_key_value_heads, d});
        Factors conjugate;
        Vector one(static_cast<std::size_t>(d));
        for (int i = g * d; i < g * d + d / 2; ++i) {
            conjugate.emplace_back(k_mean[static_cast<std::size_t>(i)], -k_mean[static_cast<std::size_t>(i + d / 2)]);
            one[static_cast<std::size_t>(i - g * d)] = 1;
        }
        const Rows q = linear(name(layer, "q_proj"), config_.num_attention_heads * d, x);
        for (std::size_t t = 0; t < x.size(); ++t) {
            parts.query[t] = joined(parts.query[t], rotated(slice(q[t], h * d, d), pairs, pairs, t, conjugate));
            parts.key[t] = joined(parts.key[t], rotated(one, pairs, pairs, t));
        }
    }

    Parts latent_parts(int layer, int h, const Rows& x) const {
        const MlaConfig& mla = config_.mla();
        const auto l = static_cast<std::size_t>(layer);
        const int d = config_.head_dim, g = h / config_.group_size(), k = mla.rope_key_head(g);
        const int rank = mla.kv_lora_rank[l], head_rank = mla.head_rank(layer), dr = mla.qk_rope_head_dim[l],
                  dn = mla.qk_nope_head_dim[l];
        const auto& rope = mla.rope_pairs[l][static_cast<std::size_t>(k)];
        const auto nope = mla.unrotated_pairs(layer, g, d / 2);
        const std::vector<int> still(nope.size(), 0);
        const Rows q = linear(name(layer, "q_proj"), config_.num_attention_heads * d, x);
        const Rows a = linear(name(layer, "kv_a_proj_with_mqa"), mla.cached_elements(layer), x);
        const int latent_group = g / (config_.num_key_value_heads / mla.latent_groups);
        Rows latent;  // of the head's group
        for (const Vector& row : a) latent.push_back(slice(row, latent_group * head_rank, head_rank));
        const int head_rows = dn + mla.v_head_dim;
        const Factors nope_factors = factors(name(layer, "q_nope_factor"), dn / 2, h);
        const Factors rope_factors = factors(name(layer, "q_rope_factor"), dr / 2, h);
        const Rows b = linear(name(layer, "kv_b_proj"), config_.num_key_value_heads * head_rows, latent);
        const bool own_rope = mla.q_rope_proj && dr > 0;
        const Rows q_rope = own_rope ? linear(name(layer, "q_rope_proj"), config_.num_attention_heads * dr, x) : Rows{};
        Parts head;
        for (std::size_t t = 0; t < x.size(); ++t) {
            const Vector own = slice(q[t], h * d, d);
            const Vector rotary = own_rope
                                      ? rotated(slice(q_rope[t], h * dr, dr), count_up(dr / 2), rope, t, rope_factors)
                                      : rotated(own, rope, rope, t, rope_factors);
            head.query.push_back(joined(rotated(own, nope, still, 0, nope_factors), rotary));
            head.key.push_back(joined(slice(b[t], g * head_rows, dn),
                                      rotated(slice(a[t], rank + k * dr, dr), count_up(dr / 2), rope, t)));
            head.value.push_back(slice(b[t], g * head_rows + dn, mla.v_head_dim));
        }
        return head;
    }

    static Vector joined(Vector a, const Vector& b) {
        a.insert(a.end(), b.begin(), b.end());
        return a;
    }

    static std::string name(int layer, const std::string& part) {
        return checkpoint::layer_tensor(layer, "self_attn." + part);
    }

    const Checkpoint& model_;
    const ModelConfig& config_;
    std::vector<double> frequencies_;
};

}  // namespace

Logits oracle_logits(const Checkpoint& model, std::span<const int> tokens) { return Oracle(model).run(tokens); }
std::vector<Rows> oracle_states(const Checkpoint& model, std::span<const int> tokens) {
    return Oracle(model).states(tokens);
}

ModelConfig tiny_config() {
    ModelConfig config;
    config.model_type = "llama";
    config.vocab_size = 101;
    config.hidden_size = 34;
    config.intermediate_size = 57;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 16;
    config.max_position_embeddings = 700;
    config.rms_norm_eps = 1e-5;
    config.rope_theta = 10000;
    return config;
}

ModelConfig tiny_mla_config(const MlaChoice& choice) {
    ModelConfig config = tiny_config();
    config.model_type = "mha2mla";
    config.num_key_value_heads = choice.kv_heads;
    config.tie_word_embeddings = choice.shared_rope_key;
    config.attention_bias = choice.biases || choice.sink_tokens > 0;
    config.mlp_bias = choice.biases;
    MlaConfig mla;
    mla.q_nope_factor = mla.q_rope_factor = choice.factors;
    mla.q_rope_proj = choice.own_rope_query;
    mla.positional_part = choice.positional_part;
    mla.sink_tokens = choice.sink_tokens;
    mla.latent_groups = choice.latent_groups;
    mla.kv_lora_rank = choice.ranks;
    mla.v_head_dim = config.head_dim;
    mla.num_rope_key_heads = choice.shared_rope_key ? 1 : config.num_key_value_heads;
    mla.nope_pairs = choice.nope_pairs;
    mla.softmax_scale = 1 / std::sqrt(config.head_dim);
    mla.source_model_type = "llama";
    const bool all = choice.nope_pairs == checkpoint::NopePairs::all;
    for (const int pairs : choice.pairs) {
        mla.qk_rope_head_dim.push_back(2 * pairs);
        mla.qk_nope_head_dim.push_back(all ? config.head_dim : config.head_dim - 2 * pairs);
        std::vector<std::vector<int>> of_heads;
        for (int k = 0; k < mla.num_rope_key_heads; ++k) {
            std::vector<int> indices;  // in no order and different by head
            for (int i = 0; i < pairs; ++i) {
                const int step = choice.repeats ? i / 2 : i;
                indices.push_back((step * (all ? 2 : 3) + 5 + k) % config.rope_pairs());
            }
            of_heads.push_back(indices);
        }
        mla.rope_pairs.push_back(of_heads);
    }
    config.attention = mla;
    return config;
}

Checkpoint random_model(const ModelConfig& config, const std::string& name) {
    const auto path = std::filesystem::path(testing::TempDir()) / (name + "-" + std::to_string(getpid()));
    checkpoint::test::write_random_model(config, path);
    auto model = Checkpoint::open(path);
    std::filesystem::remove_all(path);  // the tensors stay mapped
    return model;
}

Checkpoint open_fixture(const std::string& name) {
    return Checkpoint::open(std::filesystem::path(MHA2MLA_FIXTURES) / "models" / name);
}

std::vector<int> random_tokens(int count, int vocab, std::uint64_t seed) {
    core::Random random(seed);
    std::vector<int> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int>(random.below(static_cast<std::uint64_t>(vocab))));
    return tokens;
}

Logits Engine::logits(std::span<const int> tokens, std::size_t piece) {
    Logits rows;
    Sequence sequence = decoder.new_sequence();
    for (std::size_t first = 0; first < tokens.size(); first += piece) {
        const auto part = tokens.subspan(first, std::min(piece, tokens.size() - first));
        decoder.forward_all(sequence, part, [&](std::int64_t, std::span<const float> logits) {
            const auto vocab = static_cast<std::ptrdiff_t>(decoder.config().vocab_size);
            for (auto row = logits.begin(); row != logits.end(); row += vocab) rows.emplace_back(row, row + vocab);
        });
    }
    return rows;
}

double relative_error(const Logits& a, const Logits& b) {
    EXPECT_EQ(a.size(), b.size());
    double error = 0, norm = 0;
    for (std::size_t t = 0; t < b.size(); ++t) {
        for (std::size_t i = 0; i < b[t].size(); ++i) {
            error += (a[t][i] - b[t][i]) * (a[t][i] - b[t][i]);
            norm += b[t][i] * b[t][i];
        }
    }
    return std::isnan(error) ? INFINITY : std::sqrt(error / norm);
}

DecoderOptions f32_options(AttentionForm form) {
    return {
        .weights = kernels::WeightFormat::f32, .kv_cache = cache::plain_format(core::DType::f32), .attention = form};
}

TEST(Oracle, AgreesWithTransformersOnAFixture) {
    const auto model = open_fixture("tiny-gqa");
    const auto expected = core::parse_json(core::read_text(model.path() / "expected.json"), "expected.json");
    const auto logits = oracle_logits(model, expected["tokens"].get<std::vector<int>>());
    Logits seen, wanted;
    for (std::size_t i = 0; i < expected["positions"].size(); ++i) {
        seen.push_back(logits[expected["positions"][i].get<std::size_t>()]);
        wanted.push_back(expected["logits"][i].get<std::vector<double>>());
    }
    EXPECT_LT(relative_error(seen, wanted), 1e-5);
}

}  // namespace mha2mla::runtime::test
