#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.h"
#include "core/json.h"

namespace mha2mla::convert {

/// Which rotary pairs keep their rotation (arXiv 2502.14837 section 3.1).
enum class Selection { high, low, uniform, two_norm, table };
/// How un-rotated keys and values become low-rank (section 3.2). `none` keeps them exactly (identity factors).
enum class Factorization { joint_svd, split_svd, none };

/// As the command line spells them: "2-norm", "joint-svd".
std::string_view name_of(Selection selection);
std::string_view name_of(Factorization factorization);

/// Choices of the method lsq (docs/conversion.md). Each part can be switched off to see what it is worth.
struct LsqOptions {
    std::optional<int> rope_components;  ///< rotary pairs of the one shared key; default by the errors of each layer
    /// Layers share the cache by what they lose, else all are equal; default: wherever sizes are left open.
    std::optional<bool> by_layer;
    bool compensate = true;       ///< un-rotated pairs of the query get the best constant for their lost rotation
    bool shared_rope = true;      ///< rotary components mix the KV heads; else each is one pair of one head
    bool mean_key = true;         ///< the keys' mean keeps its RoPE: the positional part
    bool weighted = true;         ///< errors count as they change the output; else as they change keys and values
    bool refit_output = false;    ///< output matrices are fitted anew on the converted layers before them
    bool deepseek_shape = false;  ///< only what stock engines load: switches mean_key, sinks and by_layer off
    int sinks = 4;                ///< first tokens that stay exact; needs mean_key
};

/// Choices of the method transmla (docs/conversion.md).
struct TransmlaOptions {
    std::optional<int> rope_components;  ///< rotary pairs of the one shared key; default by the size of the cache
    std::optional<int> freqfold;  ///< adjacent frequencies that count as one; default: what reads held-out text best
    double balance_kv = 1;        ///< mean norm of the keys before the latent is chosen, in those of the values
};

struct ConversionOptions {
    std::string method = "mha2mla";
    LsqOptions lsq;
    TransmlaOptions transmla;
    Selection selection = Selection::uniform;
    Factorization factorization = Factorization::joint_svd;
    std::optional<int> rope_pairs;  ///< r per KV head; default head_dim / 16, the paper's
    std::optional<int> kv_rank;     ///< d_kv per KV head: R = d_kv * G
    std::optional<double>
        cache_ratio;               ///< share of the source cache to keep; sets kv_rank. Default: the paper's -68.75 %
    int latent_groups = 1;         ///< L: runs of KV heads, each with a latent of its own, R / L wide
    bool split_full_rank = false;  ///< the reference's split SVD: the whole R for keys and for values
    std::filesystem::path rank_table;              ///< for Selection::table
    std::optional<std::uint64_t> latent_rotation;  ///< seed; latents are rotated so that their channels are alike
};

/// What a conversion will do, layer by layer: readable JSON, the same before (--dry-run) and after (conversion.json).
struct Plan {
    ConversionOptions options;  ///< with the sizes that the method chooses resolved
    checkpoint::ModelConfig source;
    checkpoint::ModelConfig target;  ///< rope_pairs that depend on data are empty, then filled in layer by layer

    double cache_ratio() const;  ///< target cache elements / source cache elements
};

/// Checks the options against the model and lays out the target. Throws Error naming the option and its valid range.
Plan make_plan(const checkpoint::ModelConfig& source, const ConversionOptions& options);

/// Throws the Error of an option that this model or another option does not allow.
[[noreturn]] void reject(const char* option, const std::string& what, const std::string& expected,
                         const std::string& got);

/// Fills in the pairs of a layer that were chosen from data.
void set_rope_pairs(Plan& plan, int layer, const std::vector<std::vector<int>>& pairs);

core::OrderedJson plan_to_json(const Plan& plan);

/// How the latent of a layer divides between keys and values under split SVD. A side that has fewer dims than its half
/// leaves the rest to the other. Of a latent group where there are several.
struct LatentSplit {
    int keys = 0;
    int values = 0;
};
LatentSplit split_latent(const checkpoint::ModelConfig& source, const ConversionOptions& resolved);
/// The source as a latent group sees it: with the KV heads of one group.
checkpoint::ModelConfig latent_group_of(const checkpoint::ModelConfig& source, const ConversionOptions& options);

}  // namespace mha2mla::convert
