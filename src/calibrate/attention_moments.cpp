#include "calibrate/attention_moments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace mha2mla::calibrate {
namespace {

using torch::Tensor;

/// Sums in fp64, in place: an [E, E] sum of a wide model takes 134 MB.
void add_to(Tensor& sum, const Tensor& value) {
    if (!sum.defined()) sum = torch::zeros(value.sizes(), torch::kFloat64);
    sum.add_(value.to(torch::kCPU));
}

/// Some of the positions [first_query, tokens), ascending; the same for a window in every run.
Tensor draw_queries(std::int64_t tokens, const MomentOptions& options, std::uint64_t window) {
    constexpr std::uint64_t most_windows = std::uint64_t{1} << 20;
    std::mt19937_64 random(options.seed * most_windows + window);
    std::vector<std::int64_t> positions(
        static_cast<std::size_t>(std::max<std::int64_t>(tokens - options.first_query, 1)));
    std::iota(positions.begin(), positions.end(), std::min<std::int64_t>(options.first_query, tokens - 1));
    for (std::size_t i = positions.size(); i > 1; --i) std::swap(positions[i - 1], positions[random() % i]);
    positions.resize(std::min(positions.size(), static_cast<std::size_t>(options.queries)));
    std::sort(positions.begin(), positions.end());
    return torch::tensor(positions, torch::kInt64);
}

/// One window of one layer: [tokens, heads, d], and the attention of the drawn queries.
struct Window {
    Tensor x_TE;  // centred
    Tensor q_THd, k_TGd, v_TGd;
    Tensor q_rotated_THd, k_rotated_TGd;
    Tensor queries;  // [M] positions
    Tensor p_HMT;    // causal attention; sinks are zero
    Tensor full_p_HMT;
};

/// Attention of the drawn queries: [H, M, T].
Tensor attention_rows(const Window& window) {
    const auto heads = window.q_THd.size(1);
    const auto group = heads / window.k_TGd.size(1);
    const auto q = window.q_rotated_THd.index_select(0, window.queries).transpose(0, 1);  // [H, M, d]
    const auto k = window.k_rotated_TGd.transpose(0, 1).repeat_interleave(group, 0);      // [H, T, d]
    const auto logits = q.bmm(k.transpose(1, 2)) / std::sqrt(static_cast<double>(q.size(2)));
    const auto keys = torch::arange(logits.size(2), window.queries.options());
    const auto hidden = keys.unsqueeze(0) > window.queries.unsqueeze(1);
    return logits.masked_fill(hidden.unsqueeze(0), -std::numeric_limits<double>::infinity()).softmax(-1);
}

/// Adds up a tensor over processes.
void sum_over(const parallel::Communicator& processes, Tensor& sum) {
    processes.sum({sum.data_ptr<double>(), static_cast<std::size_t>(sum.numel())});
}

/// Sums of one layer over windows.
class MomentSum {
public:
    MomentSum(const MomentOptions& options, const parallel::Communicator& processes)
        : options_(options), processes_(processes) {}

    void add_to_mean(const Tensor& x_TE) {
        const auto kept = x_TE.slice(0, options_.sinks);
        add_to(mean_, kept.sum(0));
        tokens_ += static_cast<double>(kept.size(0));
    }
    /// After the mean has seen every window.
    void add(model::GqaAttentionImpl& attention, const Tensor& x_BTE);
    /// To be asked once: the sums become the result.
    AttentionMoments result(InversePower power);

private:
    Tensor mean() const { return mean_ / std::max(tokens_, 1.0); }
    void complete_mean();
    void complete_sums();
    std::uint64_t next_window();
    Window window(model::GqaAttentionImpl& attention, const Tensor& x_BTE);
    void add_inputs(const Window& window);
    void add_costs(const Window& window, const Tensor& output_weight);
    void add_pairs(const Window& window, const Tensor& mean_key_Gd);

    MomentOptions options_;
    const parallel::Communicator& processes_;
    std::uint64_t windows_ = 0;  // seen so far
    bool mean_is_complete_ = false;
    double tokens_ = 0;   // of the mean
    double queries_ = 0;  // drawn so far
    Tensor mean_, token_, value_, attended_, gram_, cost_;
    std::array<Tensor, 6> pairs_;
};

void MomentSum::complete_mean() {
    sum_over(processes_, mean_);
    processes_.sum({&tokens_, 1});
    mean_is_complete_ = true;
}

void MomentSum::complete_sums() {
    for (auto* sum : {&token_, &value_, &attended_, &gram_, &cost_}) sum_over(processes_, *sum);
    for (auto& sum : pairs_) sum_over(processes_, sum);
    processes_.sum({&queries_, 1});
}

/// Its number among those of all processes.
std::uint64_t MomentSum::next_window() {
    return static_cast<std::uint64_t>(processes_.rank()) + windows_++ * static_cast<std::uint64_t>(processes_.size());
}

Window MomentSum::window(model::GqaAttentionImpl& attention, const Tensor& x_BTE) {
    Window window;
    window.x_TE = x_BTE[0].to(torch::kFloat32) - mean().to(x_BTE.device(), torch::kFloat32);
    const auto q = attention.queries(x_BTE);
    const auto k = attention.keys(x_BTE);
    window.q_THd = q[0].to(torch::kFloat32);
    window.k_TGd = k[0].to(torch::kFloat32);
    window.v_TGd = attention.values(x_BTE)[0].to(torch::kFloat32);
    window.q_rotated_THd = attention.rotate(q)[0].to(torch::kFloat32);
    window.k_rotated_TGd = attention.rotate(k)[0].to(torch::kFloat32);
    window.queries = draw_queries(x_BTE.size(1), options_, next_window()).to(x_BTE.device());
    window.full_p_HMT = attention_rows(window);
    window.p_HMT = window.full_p_HMT.clone();
    window.p_HMT.slice(2, 0, options_.sinks).zero_();
    return window;
}

/// Cc, Cv, Cp and Cq.
void MomentSum::add_inputs(const Window& window) {
    const auto heads = static_cast<double>(window.p_HMT.size(0));
    const auto kept = window.x_TE.slice(0, options_.sinks);
    add_to(token_, kept.t().mm(kept));
    const auto mixed = window.p_HMT.flatten(0, 1).mm(window.x_TE);  // [H M, E]
    add_to(value_, mixed.t().mm(mixed) / heads);
    const auto weight_T1 = window.p_HMT.sum(torch::IntArrayRef({0, 1})).unsqueeze(1);
    add_to(attended_, window.x_TE.t().mm(window.x_TE * weight_T1) / heads);
    const auto q = window.q_THd.index_select(0, window.queries).transpose(0, 1);  // [H, M, d]
    add_to(gram_, q.transpose(1, 2).bmm(q));
}

/// beta: sum over keys of p (v - o)ᵀ W_oᵀ W_o (v - o), by its three terms.
void MomentSum::add_costs(const Window& window, const Tensor& output_weight) {
    const auto heads = window.p_HMT.size(0);
    const auto group = heads / window.v_TGd.size(1);
    const auto w_HEd = output_weight.to(torch::kFloat32).unflatten(1, {heads, -1}).transpose(0, 1);
    const auto metric_Hdd = w_HEd.transpose(1, 2).bmm(w_HEd);
    const auto v_HTd = window.v_TGd.transpose(0, 1).repeat_interleave(group, 0);
    const auto norms_HT1 = (v_HTd.bmm(metric_Hdd) * v_HTd).sum(-1, true);
    const auto output = window.full_p_HMT.bmm(v_HTd);  // o [H, M, d]
    const auto kept = window.p_HMT.bmm(v_HTd);         // without the sinks
    const auto metric_output = output.bmm(metric_Hdd);
    const auto squares = window.p_HMT.bmm(norms_HT1).squeeze(-1) - 2 * (kept * metric_output).sum(-1) +
                         window.p_HMT.sum(-1) * (output * metric_output).sum(-1);
    add_to(cost_, squares.sum(1));
}

/// Products of the keys' pairs that one multiplication by p averages for every query: [T, features, P].
Tensor pair_features(const Tensor& k_Td, const Tensor& k_rotated_Td) {
    const auto plain = k_Td.chunk(2, 1);
    const auto turned = k_rotated_Td.chunk(2, 1);
    const auto& re = plain[0];
    const auto& im = plain[1];
    const auto& turned_re = turned[0];
    const auto& turned_im = turned[1];
    return torch::stack(
        {re, im, turned_re, turned_im, re * re, re * im, im * im, turned_re * turned_re, turned_re * turned_im,
         turned_im * turned_im, turned_re * re, turned_re * im, turned_im * re, turned_im * im},
        1);
}

/// The six moments of N queries from their averaged features [N, 14, P], with q = x + iy and its rotated form u + iv.
std::array<Tensor, 6> pair_moments(const Tensor& averages, const Tensor& q_Nd, const Tensor& q_rotated_Nd) {
    const auto f = averages.unbind(1);
    const auto q = q_Nd.chunk(2, 1);
    const auto turned = q_rotated_Nd.chunk(2, 1);
    const auto &x = q[0], &y = q[1], &u = turned[0], &v = turned[1];
    const auto a = x * f[0] + y * f[1];
    const auto b = x * f[1] - y * f[0];
    const auto t = u * f[2] + v * f[3];
    const auto aa = x * x * f[4] + 2 * x * y * f[5] + y * y * f[6];
    const auto bb = x * x * f[6] - 2 * x * y * f[5] + y * y * f[4];
    const auto ab = (x * x - y * y) * f[5] + x * y * (f[6] - f[4]);
    const auto tt = u * u * f[7] + 2 * u * v * f[8] + v * v * f[9];
    const auto ta = u * (x * f[10] + y * f[11]) + v * (x * f[12] + y * f[13]);
    const auto tb = u * (x * f[11] - y * f[10]) + v * (x * f[13] - y * f[12]);
    return {aa - a * a, ab - a * b, bb - b * b, ta - t * a, tb - t * b, tt - t * t};
}

/// The features depend on the KV head alone: its query heads share them, and one product.
void MomentSum::add_pairs(const Window& window, const Tensor& mean_key_Gd) {
    const auto kv_heads = window.k_TGd.size(1);
    const auto group = window.p_HMT.size(0) / kv_heads;
    std::array<std::vector<Tensor>, 6> sums;  // [group, P] a KV head
    for (std::int64_t g = 0; g < kv_heads; ++g) {
        const auto features =
            pair_features(window.k_TGd.select(1, g) - mean_key_Gd[g], window.k_rotated_TGd.select(1, g));
        const auto p_NT = window.p_HMT.slice(0, g * group, (g + 1) * group).flatten(0, 1);  // N = group x M
        const auto averages = p_NT.mm(features.flatten(1)).unflatten(1, {features.size(1), -1});
        const auto pick = [&](const Tensor& x_THd) {
            const auto heads = x_THd.slice(1, g * group, (g + 1) * group);
            return heads.index_select(0, window.queries).transpose(0, 1).flatten(0, 1);
        };
        const auto parts = pair_moments(averages, pick(window.q_THd), pick(window.q_rotated_THd));
        for (std::size_t i = 0; i < parts.size(); ++i) sums[i].push_back(parts[i].unflatten(0, {group, -1}).sum(1));
    }
    for (std::size_t i = 0; i < sums.size(); ++i) add_to(pairs_[i], torch::cat(sums[i]));
}

void MomentSum::add(model::GqaAttentionImpl& attention, const Tensor& x_BTE) {
    if (!mean_is_complete_) complete_mean();
    auto window = this->window(attention, x_BTE);
    add_inputs(window);
    add_costs(window, attention.output_weight());
    auto mean_key = torch::zeros_like(window.k_TGd[0]);
    if (options_.centred_keys) {
        const auto mean_input = mean().to(x_BTE.device(), x_BTE.scalar_type()).view({1, 1, -1});
        const auto key = attention.keys(mean_input);
        mean_key = key[0][0].to(torch::kFloat32);
        const auto everywhere = key.expand({1, x_BTE.size(1), key.size(2), key.size(3)});
        window.k_rotated_TGd -= attention.rotate(everywhere)[0].to(torch::kFloat32);
    }
    add_pairs(window, mean_key);
    queries_ += static_cast<double>(window.queries.size(0));
}

AttentionMoments MomentSum::result(InversePower power) {
    complete_sums();
    processes_.sum({&power.sum, 1});
    processes_.sum({&power.tokens, 1});
    const auto pair = [&](std::size_t i) { return pairs_[i].div_(queries_); };
    return {.input_mean = mean(),
            .token_covariance = token_.div_(tokens_),
            .value_covariance = value_.div_(queries_),
            .key_covariance = attended_.div_(queries_).sub_(value_),
            .query_gram = gram_.div_(queries_),
            .logit_cost = cost_.div_(queries_),
            .pairs = {.aa = pair(0), .ab = pair(1), .bb = pair(2), .ta = pair(3), .tb = pair(4), .tt = pair(5)},
            .inverse_power = torch::full({1}, power.sum / std::max(power.tokens, 1.0), torch::kFloat64)};
}

}  // namespace

int shortest_window(const MomentOptions& options) { return std::max(options.sinks, options.first_query) + 2; }

AttentionMoments measure_attention_moments(LayerWalk& walk, const MomentOptions& options, const std::stop_token& stop,
                                           const parallel::Communicator& processes) {
    MomentSum sum(options, processes);
    const auto add_to_mean = [&](model::GqaAttentionImpl&, const Tensor& x_BTE) { sum.add_to_mean(x_BTE[0]); };
    const auto add = [&](model::GqaAttentionImpl& attention, const Tensor& x_BTE) { sum.add(attention, x_BTE); };
    const InversePower power = walk.step({add_to_mean, add}, stop);
    return sum.result(power);
}

}  // namespace mha2mla::calibrate
