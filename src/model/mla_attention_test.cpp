#include "model/mla_attention.h"

#include <cmath>
#include <complex>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "model/frequencies.h"

namespace mha2mla::model {
namespace {

using checkpoint::MlaConfig;
using checkpoint::ModelConfig;
using checkpoint::NopePairs;
using Complex = std::complex<double>;

constexpr int tokens = 7;

/// Random weights made when first asked for, the same for every module that asks.
class RandomWeights {
public:
    Weights reader(torch::Dtype dtype, AttentionForm form, const std::optional<cache::CacheFormat>& cache = {}) {
        ModelOptions options;
        options.dtype = dtype;
        options.attention = form;
        options.emulated_cache = cache;
        return Weights(
            [this](const std::string& name, const checkpoint::Shape& shape) {
                auto& tensor = tensors_[name];
                if (!tensor.defined()) tensor = torch::randn(shape) * 0.4;
                return tensor;
            },
            options);
    }
    /// A weight matrix as plain numbers; an absent one as empty.
    std::vector<double> values(const std::string& name) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) return {};
        const auto flat = found->second.to(torch::kFloat64).contiguous();
        return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
    }

private:
    std::map<std::string, torch::Tensor> tensors_;
};

/// H = 4, G = 2, d = 12; two layers of different widths where the test asks for it.
ModelConfig config_with(MlaConfig mla) {
    ModelConfig config;
    config.model_type = "mha2mla";
    config.hidden_size = 20;
    config.num_hidden_layers = static_cast<int>(mla.kv_lora_rank.size());
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 12;
    config.max_position_embeddings = 64;
    config.rope_theta = 100;
    mla.v_head_dim = 12;
    mla.softmax_scale = 1 / std::sqrt(12.0);
    config.attention = std::move(mla);
    return config;
}

struct Case {
    std::string name;
    ModelConfig config;
    int layer = 0;
};

/// One layer; `pairs` has an item per rotary key head, dn = d - dr unless every pair is un-rotated, too.
MlaConfig one_layer(int rank, const std::vector<std::vector<int>>& pairs, NopePairs nope = NopePairs::unrotated) {
    const int rope = 2 * static_cast<int>(pairs.front().size());
    MlaConfig mla;
    mla.kv_lora_rank = {rank};
    mla.qk_rope_head_dim = {rope};
    mla.qk_nope_head_dim = {nope == NopePairs::all ? 12 : 12 - rope};
    mla.num_rope_key_heads = static_cast<int>(pairs.size());
    mla.rope_pairs = {pairs};
    mla.nope_pairs = nope;
    return mla;
}

std::vector<Case> cases() {
    const auto per_head = one_layer(9, {{0, 3}, {2, 5}});
    auto mixed = per_head;
    mixed.kv_lora_rank.push_back(4);
    mixed.qk_rope_head_dim.push_back(2);
    mixed.qk_nope_head_dim.push_back(10);
    mixed.rope_pairs.push_back({{4}, {1}});
    auto biased = config_with(per_head);
    biased.attention_bias = true;
    auto factors = one_layer(8, {{1, 1, 4}}, NopePairs::all);
    factors.q_nope_factor = factors.q_rope_factor = true;
    auto own_rows = one_layer(8, {{2, 2, 5, 0}}, NopePairs::all);
    own_rows.q_rope_proj = true;
    auto rows_and_factors = per_head;
    rows_and_factors.q_rope_proj = rows_and_factors.q_rope_factor = true;
    auto positional = per_head;
    positional.positional_part = true;
    auto exact = factors;
    exact.positional_part = true;
    exact.sink_tokens = 4;
    auto only_sinks = exact;
    only_sinks.sink_tokens = 64;
    auto grouped = per_head;
    grouped.kv_lora_rank = {8};
    grouped.latent_groups = 2;
    const auto with_bias = [](const MlaConfig& mla) {
        auto config = config_with(mla);
        config.attention_bias = true;
        return config;
    };
    return {{"factors of the query", config_with(factors)},
            {"a rotary query of its own", with_bias(own_rows)},
            {"the same with factors", config_with(rows_and_factors)},
            {"positional part", config_with(positional)},
            {"every part and four sinks", with_bias(exact)},
            {"nothing but sinks", with_bias(only_sinks)},
            {"one rotary key per KV head", config_with(per_head)},
            {"a latent for each KV head", with_bias(grouped)},
            {"one shared rotary key", config_with(one_layer(5, {{5, 1, 2}}))},
            {"every pair rotates", config_with(one_layer(7, {{0, 1, 2, 3, 4, 5}, {5, 4, 3, 2, 1, 0}}))},
            {"no pair rotates", config_with(one_layer(6, {{}, {}}))},
            {"all pairs un-rotated too, repeats", config_with(one_layer(8, {{1, 1, 4}}, NopePairs::all))},
            {"second layer of other widths", config_with(mixed), 1},
            {"biases", biased}};
}

/// y[t] = W x[t] + b in plain loops.
std::vector<double> linear(const std::vector<double>& x, const std::vector<double>& weight,
                           const std::vector<double>& bias, std::size_t out) {
    const std::size_t in = weight.size() / out;
    std::vector<double> y(tokens * out);
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t o = 0; o < out; ++o) {
            double sum = bias.empty() ? 0 : bias[o];
            for (std::size_t i = 0; i < in; ++i) sum += weight[o * in + i] * x[t * in + i];
            y[t * out + o] = sum;
        }
    }
    return y;
}

/// A row as a cache in `format` gives it back.
std::vector<double> round_row(const std::vector<double>& row, const cache::RowFormat& format) {
    std::vector<float> numbers;
    for (const double x : row) numbers.push_back(core::to_float(core::to_bf16(static_cast<float>(x))));
    std::vector<std::uint8_t> codes(row.size());
    std::vector<cache::GroupScale> scales(format.codes->groups(row.size()));
    cache::quantize_row(*format.codes, numbers, codes, scales);
    cache::dequantize_row(*format.codes, codes, scales, numbers);
    return {numbers.begin(), numbers.end()};
}

/// The expanded form of docs/checkpoint.md in plain loops over complex pairs.
class Oracle {
public:
    Oracle(const RandomWeights& weights, const Case& test, const std::vector<double>& x,
           const std::optional<cache::CacheFormat>& cache = {})
        : mla_(test.config.mla()), layer_(test.layer), shape_(MlaShape::of(test.config, test.layer)) {
        for (const double f : checkpoint::rope_frequencies(test.config)) frequencies_.push_back(f);
        const auto project = [&](const char* name, const std::vector<double>& input, std::int64_t out) {
            const std::string prefix = name;
            return linear(input, weights.values(prefix + ".weight"), weights.values(prefix + ".bias"),
                          static_cast<std::size_t>(out));
        };
        width_a_ = shape_.rank + shape_.rope_keys * shape_.rope;
        q_ = project("q_proj", x, shape_.heads * 12);
        a_ = project("kv_a_proj_with_mqa", x, width_a_);
        if (cache) round_cached_rows(*cache);
        b_.resize(index(tokens * shape_.kv_heads * (shape_.nope + shape_.value)));
        for (std::int64_t group = 0; group < shape_.groups; ++group) {
            rebuild(group, project("kv_b_proj", latent_of(group), shape_.kv_heads * (shape_.nope + shape_.value)));
        }
        nope_factor_ = weights.values("q_nope_factor");
        rope_factor_ = weights.values("q_rope_factor");
        k_mean_ = weights.values("k_mean");
        if (mla_.q_rope_proj) own_q_rope_ = project("q_rope_proj", x, shape_.heads * shape_.rope);
        if (mla_.sink_tokens > 0) {
            sink_keys_ = project("k_proj", x, shape_.kv_heads * 12);
            sink_values_ = project("v_proj", x, shape_.kv_heads * 12);
        }
        output_ = project("o_proj", attend(), test.config.hidden_size);
    }
    const std::vector<double>& output() const { return output_; }

private:
    std::int64_t head_rank() const { return shape_.rank / shape_.groups; }
    std::vector<double> latent_of(std::int64_t group) const {
        std::vector<double> latent;
        for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t r = 0; r < head_rank(); ++r) {
                latent.push_back(a_[index(t * width_a_ + group * head_rank() + r)]);
            }
        }
        return latent;
    }
    /// Takes the keys and values of the group's heads from those that its latent gives all heads.
    void rebuild(std::int64_t group, const std::vector<double>& of_all_heads) {
        const std::int64_t width = shape_.kv_heads * (shape_.nope + shape_.value);
        const std::int64_t group_width = width / shape_.groups;
        for (std::int64_t t = 0; t < tokens; ++t) {
            const auto from = of_all_heads.begin() + t * width + group * group_width;
            std::copy_n(from, group_width, b_.begin() + t * width + group * group_width);
        }
    }
    static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
    Complex query(std::int64_t t, std::int64_t head, int pair) const {
        const auto row = (t * shape_.heads + head) * 12;
        return {q_[index(row + pair)], q_[index(row + 6 + pair)]};
    }
    /// Component j of the rotary query: a row of its own, or the query's pair.
    Complex rotary_query(std::int64_t t, std::int64_t head, std::int64_t j, int pair) const {
        const auto row = (t * shape_.heads + head) * shape_.rope;
        if (own_q_rope_.empty()) return query(t, head, pair);
        return {own_q_rope_[index(row + j)], own_q_rope_[index(row + shape_.rope / 2 + j)]};
    }
    /// Item `index` of a tensor of complex pairs [.., 2] as a factor; 1 where the model has no such tensor.
    static Complex factor(const std::vector<double>& values, std::int64_t item) {
        return values.empty() ? Complex(1) : Complex(values[index(2 * item)], values[index(2 * item + 1)]);
    }
    Complex turn(int pair, std::int64_t distance) const {
        return std::polar(1.0, static_cast<double>(distance) * frequencies_[index(pair)]);
    }
    /// Rounds a_: the latents, and the rotary keys where their rotated form is on the grid.
    void round_cached_rows(const cache::CacheFormat& format) {
        for (std::int64_t t = 0; t < tokens; ++t) {
            const auto row = a_.begin() + t * width_a_;
            turn_keys(t, t);
            round_groups(row, head_rank(), format.content);
            round_groups(row + shape_.rank, shape_.rope_keys * shape_.rope / shape_.groups, format.rotary);
            turn_keys(t, -t);
        }
    }
    void round_groups(std::vector<double>::iterator row, std::int64_t width, const cache::RowFormat& format) const {
        for (std::int64_t group = 0; group < shape_.groups; ++group, row += width) {
            const auto rounded = round_row({row, row + width}, format);
            std::copy(rounded.begin(), rounded.end(), row);
        }
    }
    /// Turns the rotary keys of token t in a_ by `distance` positions.
    void turn_keys(std::int64_t t, std::int64_t distance) {
        for (std::int64_t head = 0; head < shape_.rope_keys; ++head) {
            for (std::int64_t j = 0; j < shape_.rope / 2; ++j) {
                double& first = a_[index(t * width_a_ + shape_.rank + head * shape_.rope + j)];
                double& second = a_[index(t * width_a_ + shape_.rank + head * shape_.rope + shape_.rope / 2 + j)];
                const int pair = mla_.rope_pairs[index(layer_)][index(head)][index(j)];
                const Complex turned = Complex(first, second) * turn(pair, distance);
                first = turned.real();
                second = turned.imag();
            }
        }
    }
    /// The source's own logit, for exact sinks, or that of the keys' mean.
    double rotated_logit(std::int64_t t, std::int64_t s, std::int64_t head, const std::vector<double>& keys,
                         std::int64_t row) const {
        double sum = 0;
        for (int pair = 0; pair < 6; ++pair) {
            const Complex key(keys[index(row * 12 + pair)], keys[index(row * 12 + 6 + pair)]);
            sum += (std::conj(query(t, head, pair)) * key * turn(pair, s - t)).real();
        }
        return sum * mla_.softmax_scale;
    }
    double logit(std::int64_t t, std::int64_t s, std::int64_t head) const {
        if (s < mla_.sink_tokens) return rotated_logit(t, s, head, sink_keys_, s * shape_.kv_heads + head / 2);
        const double mean = k_mean_.empty() ? 0 : rotated_logit(t, s, head, k_mean_, head / 2);
        return mean + latent_logit(t, s, head);
    }
    double latent_logit(std::int64_t t, std::int64_t s, std::int64_t head) const {
        const auto kv_head = static_cast<int>(head / 2);
        const int key_head = mla_.rope_key_head(kv_head);
        double sum = 0;
        const auto unrotated = mla_.unrotated_pairs(layer_, kv_head, 6);
        const auto row_b = (s * shape_.kv_heads + kv_head) * (shape_.nope + shape_.value);
        for (std::int64_t j = 0; j < shape_.nope / 2; ++j) {
            const Complex key(b_[index(row_b + j)], b_[index(row_b + shape_.nope / 2 + j)]);
            const Complex scaled =
                query(t, head, unrotated[index(j)]) * factor(nope_factor_, head * shape_.nope / 2 + j);
            sum += (std::conj(scaled) * key).real();
        }
        const auto row_a = s * width_a_ + shape_.rank + key_head * shape_.rope;
        for (std::int64_t j = 0; j < shape_.rope / 2; ++j) {
            const int pair = mla_.rope_pairs[index(layer_)][index(key_head)][index(j)];
            const Complex key(a_[index(row_a + j)], a_[index(row_a + shape_.rope / 2 + j)]);
            const Complex scaled = rotary_query(t, head, j, pair) * factor(rope_factor_, head * shape_.rope / 2 + j);
            sum += (std::conj(scaled) * key * turn(pair, s - t)).real();
        }
        return sum * mla_.softmax_scale;
    }
    double value(std::int64_t s, std::int64_t kv_head, std::int64_t v) const {
        const auto row = s * shape_.kv_heads + kv_head;
        if (s < mla_.sink_tokens) return sink_values_[index(row * 12 + v)];
        return b_[index(row * (shape_.nope + shape_.value) + shape_.nope + v)];
    }
    std::vector<double> attend() const {
        std::vector<double> mixed(index(tokens * shape_.heads * shape_.value));
        for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t head = 0; head < shape_.heads; ++head) {
                double total = 0;
                for (std::int64_t s = 0; s <= t; ++s) total += std::exp(logit(t, s, head));
                for (std::int64_t s = 0; s <= t; ++s) {
                    const double p = std::exp(logit(t, s, head)) / total;
                    for (std::int64_t v = 0; v < shape_.value; ++v) {
                        mixed[index((t * shape_.heads + head) * shape_.value + v)] += p * value(s, head / 2, v);
                    }
                }
            }
        }
        return mixed;
    }

    const MlaConfig& mla_;
    int layer_;
    MlaShape shape_;
    std::int64_t width_a_ = 0;
    std::vector<double> frequencies_, q_, a_, b_, output_;
    std::vector<double> nope_factor_, rope_factor_, own_q_rope_, k_mean_, sink_keys_,
        sink_values_;  // empty where absent
};

double max_difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(MlaAttention, BothFormsEqualPlainLoops) {
    for (const auto& test : cases()) {
        SCOPED_TRACE(test.name);
        torch::manual_seed(1);
        const torch::NoGradGuard no_gradients;
        RandomWeights weights;
        const auto x = torch::randn({1, tokens, test.config.hidden_size}, torch::kFloat64);
        MlaAttention expanded(weights.reader(torch::kFloat64, AttentionForm::expanded), test.config, test.layer);
        MlaAttention absorbed(weights.reader(torch::kFloat64, AttentionForm::absorbed), test.config, test.layer);
        const Oracle oracle(weights, test, {x.data_ptr<double>(), x.data_ptr<double>() + x.numel()});
        const auto expected = torch::tensor(oracle.output(), torch::kFloat64).view(x.sizes());
        EXPECT_LT(max_difference(expanded(x), expected), 1e-11);
        EXPECT_LT(max_difference(absorbed(x), expected), 1e-11);
    }
}

TEST(MlaAttention, AnEmulatedCacheRoundsLatentsAndRotatedKeysAndNothingElse) {
    for (const auto& test : cases()) {
        for (const std::string name : {"int8", "int4-g5", "int2"}) {
            SCOPED_TRACE(test.name + ", " + name);
            torch::manual_seed(4);
            const torch::NoGradGuard no_gradients;
            RandomWeights weights;
            const auto format = cache::parse_cache_format(name, "test");
            const auto x = torch::randn({1, tokens, test.config.hidden_size}, torch::kFloat64);
            MlaAttention expanded(weights.reader(torch::kFloat64, AttentionForm::expanded, format), test.config,
                                  test.layer);
            MlaAttention absorbed(weights.reader(torch::kFloat64, AttentionForm::absorbed, format), test.config,
                                  test.layer);
            const Oracle oracle(weights, test, {x.data_ptr<double>(), x.data_ptr<double>() + x.numel()}, format);
            const auto expected = torch::tensor(oracle.output(), torch::kFloat64).view(x.sizes());
            EXPECT_LT(max_difference(expanded(x), expected), 1e-11);
            EXPECT_LT(max_difference(absorbed(x), expected), 1e-11);
        }
    }
}

TEST(MlaAttention, FormsAgreeInFp32AndBf16OverABatch) {
    for (const auto& test : cases()) {
        for (const auto& [dtype, tolerance] : {std::pair{torch::kFloat32, 1e-5}, std::pair{torch::kBFloat16, 5e-2}}) {
            SCOPED_TRACE(test.name);
            torch::manual_seed(2);
            const torch::NoGradGuard no_gradients;
            RandomWeights weights;
            const auto x = torch::randn({3, 33, test.config.hidden_size}).to(dtype);
            MlaAttention expanded(weights.reader(dtype, AttentionForm::expanded), test.config, test.layer);
            MlaAttention absorbed(weights.reader(dtype, AttentionForm::absorbed), test.config, test.layer);
            const auto a = expanded(x).to(torch::kFloat32);
            EXPECT_LT(max_difference(a, absorbed(x).to(torch::kFloat32)), tolerance * a.abs().max().item<double>());
        }
    }
}

/// Compares the gradient of `loss` at a few elements of `parameter` with central differences.
void check_gradient(torch::Tensor parameter, const torch::Tensor& gradient, const std::function<double()>& loss) {
    const torch::NoGradGuard no_gradients;
    auto flat = parameter.view(-1);
    const auto expected = gradient.reshape(-1);
    for (std::int64_t i = 0; i < flat.numel(); i += 1 + flat.numel() / 9) {
        const double value = flat[i].item<double>();
        const double step = 1e-5;
        flat[i] = value + step;
        const double above = loss();
        flat[i] = value - step;
        const double below = loss();
        flat[i] = value;
        EXPECT_NEAR((above - below) / (2 * step), expected[i].item<double>(), 1e-7) << "element " << i;
    }
}

TEST(MlaAttention, GradientsEqualFiniteDifferences) {
    for (const auto form : {AttentionForm::expanded, AttentionForm::absorbed}) {
        for (const auto& test : cases()) {
            torch::manual_seed(3);
            RandomWeights weights;
            MlaAttention attention(weights.reader(torch::kFloat64, form), test.config, test.layer);
            auto x = torch::randn({1, tokens, test.config.hidden_size}, torch::kFloat64).requires_grad_();
            const auto direction = torch::randn(x.sizes(), torch::kFloat64);
            const auto loss = [&] { return (attention(x) * direction).sum(); };
            loss().backward();
            const auto value = [&] { return loss().item<double>(); };
            check_gradient(x, x.grad(), value);
            for (const auto& parameter : attention->named_parameters()) {
                SCOPED_TRACE(test.name + ": " + parameter.key());
                check_gradient(parameter.value(), parameter.value().grad(), value);
            }
        }
    }
}

TEST(Weights, AskByNameBelowAPrefix) {
    std::string asked;
    const Weights weights(
        [&](const std::string& name, const checkpoint::Shape& shape) {
            asked = name;
            return torch::ones(shape);
        },
        ModelOptions{});
    EXPECT_EQ(weights.under("model").under("norm").load("weight", {3}).numel(), 3);
    EXPECT_EQ(asked, "model.norm.weight");
}

}  // namespace
}  // namespace mha2mla::model
