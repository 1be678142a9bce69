#include "calibrate/attention_moments.h"

#include <cmath>
#include <complex>
#include <filesystem>
#include <gtest/gtest.h>
#include <vector>

#include "core/error.h"
#include "core/progress.h"
#include "model/decoder_layer.h"

namespace mha2mla::calibrate {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using Complex = std::complex<double>;
using Vector = std::vector<double>;

const fs::path models = fs::path(MHA2MLA_FIXTURES) / "models";
const std::vector<std::vector<int>> windows{{5, 17, 99, 3, 44, 81, 7, 12, 60, 33}, {64, 2, 2, 120, 31, 8, 90, 15, 77}};
constexpr int sinks = 2;
constexpr int first_query = 4;

MomentOptions options_of_test(bool centred_keys = true) {
    // More queries than there are positions: every one from first_query on is drawn.
    return {.sinks = sinks, .queries = 1000, .first_query = first_query, .centred_keys = centred_keys};
}

/// The first layer's statistics by plain loops in double precision, straight from their definitions.
class Oracle {
public:
    Oracle(const Checkpoint& source, bool centred_keys) : config_(source.config()), centred_(centred_keys) {
        LayerWalk walk(source, windows, model::ModelOptions{});
        walk.step({[&](model::GqaAttentionImpl&, const torch::Tensor& x) { inputs_.push_back(rows_of(x[0])); }});
        width_ = config_.head_dim;
        heads_ = config_.num_attention_heads;
        group_ = config_.group_size();
        hidden_ = config_.hidden_size;
        load(source);
        find_mean();
        for (const auto& x : inputs_) add_window(x);
    }

    Vector mean, token, value, key, gram, cost, aa, ab, bb, ta, tb, tt;

private:
    static std::vector<Vector> rows_of(const torch::Tensor& x_TE) {
        std::vector<Vector> rows;
        for (std::int64_t t = 0; t < x_TE.size(0); ++t) {
            Vector row;
            for (std::int64_t e = 0; e < x_TE.size(1); ++e) row.push_back(x_TE[t][e].item<double>());
            rows.push_back(row);
        }
        return rows;
    }
    void load(const Checkpoint& source) {
        const auto read = [&](const char* name, const checkpoint::Shape& shape) {
            const auto values = source.read(std::string("model.layers.0.self_attn.") + name, shape);
            return Vector(values.begin(), values.end());
        };
        const std::int64_t query = std::int64_t{heads_} * width_;
        const std::int64_t kv = query / group_;
        wq_ = read("q_proj.weight", {query, hidden_});
        wk_ = read("k_proj.weight", {kv, hidden_});
        wv_ = read("v_proj.weight", {kv, hidden_});
        wo_ = read("o_proj.weight", {hidden_, query});
        if (config_.attention_bias) {
            bq_ = read("q_proj.bias", {query});
            bk_ = read("k_proj.bias", {kv});
            bv_ = read("v_proj.bias", {kv});
        }
        frequencies_ = checkpoint::rope_frequencies(config_);
    }
    void find_mean() {
        mean.assign(index(hidden_), 0);
        double tokens = 0;
        for (const auto& x : inputs_) {
            for (std::size_t n = sinks; n < x.size(); ++n, tokens += 1) {
                for (std::size_t e = 0; e < mean.size(); ++e) mean[e] += x[n][e];
            }
        }
        for (auto& m : mean) m /= tokens;
        tokens_ = tokens;
        for (const auto& x : inputs_) queries_ += static_cast<double>(x.size()) - first_query;
        const auto pairs = index(heads_) * index(width_ / 2);
        for (auto* square : {&token, &value, &key}) square->assign(mean.size() * mean.size(), 0);
        gram.assign(index(heads_ * width_ * width_), 0);
        cost.assign(index(heads_), 0);
        for (auto* moment : {&aa, &ab, &bb, &ta, &tb, &tt}) moment->assign(pairs, 0);
    }
    static std::size_t index(int i) { return static_cast<std::size_t>(i); }

    /// Head `head` of W x + b.
    Vector project(const Vector& weight, const Vector& bias, int head, const Vector& x) const {
        Vector out;
        for (int i = 0; i < width_; ++i) {
            const auto row = index(head * width_ + i);
            double sum = bias.empty() ? 0 : bias[row];
            for (std::size_t e = 0; e < x.size(); ++e) sum += weight[row * x.size() + e] * x[e];
            out.push_back(sum);
        }
        return out;
    }
    Complex pair(const Vector& head, int j) const { return {head[index(j)], head[index(j + width_ / 2)]}; }
    Complex turn(int j, std::size_t n, std::size_t m) const {
        return std::polar(1.0, (static_cast<double>(n) - static_cast<double>(m)) * frequencies_[index(j)]);
    }
    /// W_o,h v
    Vector output(int head, const Vector& v) const {
        Vector out(index(hidden_));
        for (std::size_t e = 0; e < out.size(); ++e) {
            for (int i = 0; i < width_; ++i) {
                out[e] += wo_[e * index(heads_ * width_) + index(head * width_ + i)] * v[index(i)];
            }
        }
        return out;
    }
    static void add_outer(Vector& square, const Vector& x, double weight) {
        for (std::size_t a = 0; a < x.size(); ++a) {
            for (std::size_t b = 0; b < x.size(); ++b) square[a * x.size() + b] += weight * x[a] * x[b];
        }
    }
    Vector centred(const Vector& x) const {
        Vector out;
        for (std::size_t e = 0; e < x.size(); ++e) out.push_back(x[e] - mean[e]);
        return out;
    }

    void add_window(const std::vector<Vector>& x) {
        for (std::size_t n = sinks; n < x.size(); ++n) add_outer(token, centred(x[n]), 1 / tokens_);
        for (int head = 0; head < heads_; ++head) {
            for (std::size_t m = first_query; m < x.size(); ++m) add_query(x, head, m);
        }
    }
    void add_query(const std::vector<Vector>& x, int head, std::size_t m) {
        const int g = head / group_;
        const auto q = project(wq_, bq_, head, x[m]);
        Vector outer(index(width_ * width_));
        add_outer(outer, q, 1 / queries_);
        for (std::size_t i = 0; i < outer.size(); ++i) gram[index(head) * outer.size() + i] += outer[i];

        Vector p;
        double total = 0;
        for (std::size_t n = 0; n <= m; ++n) {
            const auto k = project(wk_, bk_, g, x[n]);
            double logit = 0;
            for (int j = 0; j < width_ / 2; ++j) logit += (std::conj(pair(q, j)) * pair(k, j) * turn(j, n, m)).real();
            p.push_back(std::exp(logit / std::sqrt(width_)));
            total += p.back();
        }
        for (auto& weight : p) weight /= total;
        add_inputs(x, p);
        add_cost(x, head, p);
        for (int j = 0; j < width_ / 2; ++j) add_pair(x, head, j, q, p);
    }
    void add_inputs(const std::vector<Vector>& x, const Vector& p) {
        const double weight = 1 / (queries_ * heads_);
        Vector mixed(mean.size());
        for (std::size_t n = sinks; n < p.size(); ++n) {
            const auto c = centred(x[n]);
            add_outer(key, c, p[n] * weight);
            for (std::size_t e = 0; e < c.size(); ++e) mixed[e] += p[n] * c[e];
        }
        add_outer(value, mixed, weight);
        add_outer(key, mixed, -weight);
    }
    void add_cost(const std::vector<Vector>& x, int head, const Vector& p) {
        std::vector<Vector> outputs;
        Vector whole(index(hidden_));
        for (std::size_t n = 0; n < p.size(); ++n) {
            outputs.push_back(output(head, project(wv_, bv_, head / group_, x[n])));
            for (std::size_t e = 0; e < whole.size(); ++e) whole[e] += p[n] * outputs[n][e];
        }
        for (std::size_t n = sinks; n < p.size(); ++n) {
            for (std::size_t e = 0; e < whole.size(); ++e) {
                cost[index(head)] += p[n] * std::pow(outputs[n][e] - whole[e], 2) / queries_;
            }
        }
    }
    void add_pair(const std::vector<Vector>& x, int head, int j, const Vector& q, const Vector& p) {
        const std::size_t m = p.size() - 1;
        const auto mean_key = project(wk_, bk_, head / group_, mean);
        Vector a, b, t;
        for (std::size_t n = 0; n < p.size(); ++n) {
            Complex k = pair(project(wk_, bk_, head / group_, x[n]), j);
            if (centred_) k -= pair(mean_key, j);
            const Complex z = std::conj(pair(q, j)) * k;
            a.push_back(z.real());
            b.push_back(z.imag());
            t.push_back((z * turn(j, n, m)).real());
        }
        const auto moment = [&](const Vector& u, const Vector& v) {
            double product = 0, left = 0, right = 0;
            for (std::size_t n = sinks; n < p.size(); ++n) {
                product += p[n] * u[n] * v[n];
                left += p[n] * u[n];
                right += p[n] * v[n];
            }
            return (product - left * right) / queries_;
        };
        const auto at = index(head * (width_ / 2) + j);
        aa[at] += moment(a, a);
        ab[at] += moment(a, b);
        bb[at] += moment(b, b);
        ta[at] += moment(t, a);
        tb[at] += moment(t, b);
        tt[at] += moment(t, t);
    }

    const checkpoint::ModelConfig& config_;
    bool centred_;
    int width_ = 0, heads_ = 0, group_ = 0, hidden_ = 0;
    double tokens_ = 0, queries_ = 0;
    std::vector<std::vector<Vector>> inputs_;
    Vector wq_, wk_, wv_, wo_, bq_, bk_, bv_, frequencies_;
};

/// Within a share of the largest value: small entries are differences of large ones.
void expect_near(const torch::Tensor& got, const Vector& expected, const char* what) {
    const auto flat = got.contiguous().view(-1);
    ASSERT_EQ(flat.numel(), static_cast<std::int64_t>(expected.size())) << what;
    double largest = 0;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    for (std::int64_t i = 0; i < flat.numel(); ++i) {
        EXPECT_NEAR(flat[i].item<double>(), expected[static_cast<std::size_t>(i)], 2e-5 * largest) << what << " " << i;
    }
}

void expect_equal(const AttentionMoments& got, const Oracle& oracle) {
    expect_near(got.input_mean, oracle.mean, "mean");
    expect_near(got.token_covariance, oracle.token, "Cc");
    expect_near(got.value_covariance, oracle.value, "Cv");
    expect_near(got.key_covariance, oracle.key, "Ck");
    expect_near(got.query_gram, oracle.gram, "Cq");
    expect_near(got.logit_cost, oracle.cost, "beta");
    expect_near(got.pairs.aa, oracle.aa, "aa");
    expect_near(got.pairs.ab, oracle.ab, "ab");
    expect_near(got.pairs.bb, oracle.bb, "bb");
    expect_near(got.pairs.ta, oracle.ta, "ta");
    expect_near(got.pairs.tb, oracle.tb, "tb");
    expect_near(got.pairs.tt, oracle.tt, "tt");
}

AttentionMoments measure(const Checkpoint& source, const MomentOptions& options) {
    LayerWalk walk(source, windows, model::ModelOptions{});
    return measure_attention_moments(walk, options, {});
}

TEST(AttentionMoments, EqualPlainLoops) {
    for (const char* name : {"tiny-gqa", "tiny-mha", "tiny-bias"}) {
        for (const bool centred : {true, false}) {
            SCOPED_TRACE(std::string(name) + (centred ? ", centred" : ""));
            const auto source = Checkpoint::open(models / name);
            expect_equal(measure(source, options_of_test(centred)), Oracle(source, centred));
        }
    }
}

/// The residual stream after the first attention: what the layers above see an error relative to.
TEST(AttentionMoments, InversePowerIsTheMeanOverTokens) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    const torch::NoGradGuard no_gradients;
    const model::ModelOptions options;
    auto layer = model::load_layer(source, 0, options);
    double sum = 0;
    double tokens = 0;
    for (std::size_t window = 0; window < windows.size(); ++window) {
        const LayerWalk walk(source, windows, options);
        const auto attended = layer->attend(walk.hidden().get(window))[0];
        for (std::int64_t t = 0; t < attended.size(0); ++t, ++tokens)
            sum += 1 / attended[t].square().sum().item<double>();
    }
    EXPECT_NEAR(measure(source, options_of_test()).inverse_power.item<double>(), sum / tokens, 1e-4 * sum / tokens);
}

TEST(AttentionMoments, TwoRunsAreBitIdenticalAndFewerQueriesAreDrawn) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    auto options = options_of_test();
    const auto every = measure(source, options);
    options.queries = 3;
    const auto first = measure(source, options);
    EXPECT_TRUE(torch::equal(first.pairs.tt, measure(source, options).pairs.tt));
    EXPECT_FALSE(torch::equal(first.pairs.tt, every.pairs.tt));
    options.seed = 1;
    EXPECT_FALSE(torch::equal(first.pairs.tt, measure(source, options).pairs.tt));
}

TEST(AttentionMoments, StopWhenAskedTo) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    LayerWalk walk(source, windows, model::ModelOptions{});
    std::stop_source stop;
    stop.request_stop();
    EXPECT_THROW(measure_attention_moments(walk, options_of_test(), stop.get_token()), core::Cancelled);
}

}  // namespace
}  // namespace mha2mla::calibrate
