#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "calibrate/statistics.h"
#include "checkpoint/tensors.h"

/// How statistics lie on disk, for their reader and their writer: statistics.json (what they belong to), tokens.json
/// (the windows) and, a layer, one directory with a safetensors file.
namespace mha2mla::calibrate::files {

void write_origin(const std::filesystem::path& directory, const StatisticsOrigin& origin,
                  const data::TextWindows& tokens);
/// Throws Error naming the field in which the directory's origin is not `expected`. Text is not compared.
void check_origin(const std::filesystem::path& directory, const StatisticsOrigin& expected);
TokensRecord read_text(const std::filesystem::path& directory);
/// Throws Error where they are damaged, or not of this vocabulary.
data::TextWindows read_tokens(const std::filesystem::path& directory, int vocab_size);

std::filesystem::path layer_directory(const std::filesystem::path& directory, int layer);
/// The directory of the layer appears complete or not at all.
void write_layer(const std::filesystem::path& directory, int layer, const AttentionMoments& moments,
                 const checkpoint::ModelConfig& config);
/// Both throw Error naming the file where it is damaged.
void check_layer(const std::filesystem::path& directory, int layer, const checkpoint::ModelConfig& config);
AttentionMoments read_layer(const std::filesystem::path& directory, int layer, const checkpoint::ModelConfig& config);

}  // namespace mha2mla::calibrate::files
