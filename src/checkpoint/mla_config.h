#pragma once

#include "checkpoint/model_config.h"
#include "core/json.h"

namespace mha2mla::checkpoint {

/// Reads the "mla" object (format 1) among the fields of a config.json whose other values are already in `config`.
/// Throws Error naming the field; layouts that this version does not run are refused by name.
MlaConfig parse_mla(const core::JsonObject& fields, const ModelConfig& config);

/// The "mla" object of config.json.
core::OrderedJson mla_to_json(const MlaConfig& mla);

}  // namespace mha2mla::checkpoint
