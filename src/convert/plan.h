#pragma once

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

struct ConversionOptions {
    std::string method = "mha2mla";
    Selection selection = Selection::uniform;
    Factorization factorization = Factorization::joint_svd;
    std::optional<int> rope_pairs;  ///< r per KV head; default head_dim / 16, the paper's
    std::optional<int> kv_rank;     ///< d_kv per KV head: R = d_kv * G
    std::optional<double>
        cache_ratio;               ///< share of the source cache to keep; sets kv_rank. Default: the paper's -68.75 %
    bool split_full_rank = false;  ///< the reference's split SVD: the whole R for keys and for values
    std::filesystem::path rank_table;  ///< for Selection::table
};

/// What a conversion will do, layer by layer: readable JSON, the same before (--dry-run) and after (conversion.json).
struct Plan {
    ConversionOptions options;  ///< with rope_pairs and (unless the factorization is `none`) kv_rank resolved
    checkpoint::ModelConfig source;
    checkpoint::ModelConfig target;  ///< rope_pairs of 2-norm are empty, then filled in layer by layer while converting

    double cache_ratio() const;  ///< target cache elements / source cache elements
};

/// Checks the options against the model and lays out the target. Throws Error naming the option and its valid range.
Plan make_plan(const checkpoint::ModelConfig& source, const ConversionOptions& options);

core::OrderedJson plan_to_json(const Plan& plan);

/// How the latent of a layer divides between keys and values under split SVD. A side that has fewer dims than its half
/// leaves the rest to the other.
struct LatentSplit {
    int keys = 0;
    int values = 0;
};
LatentSplit split_latent(const checkpoint::ModelConfig& source, const ConversionOptions& resolved);

}  // namespace mha2mla::convert
