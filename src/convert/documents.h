#pragma once

#include <filesystem>
#include <string>

#include "convert/pipeline.h"
#include "core/json.h"

namespace mha2mla::convert {

/// conversion.json: how this checkpoint came about (the plan, fidelity, calibration, program and command).
core::OrderedJson conversion_record(const ConversionReport& report, const ConvertRequest& request);

/// generation_config.json for a source that has none: its special tokens.
core::OrderedJson generation_config(const checkpoint::ModelConfig& config);

/// README.md: a model card with the front matter that model hubs read.
std::string model_card(const ConversionReport& report, const std::filesystem::path& source);

}  // namespace mha2mla::convert
