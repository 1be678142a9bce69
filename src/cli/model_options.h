#pragma once

#include <CLI/CLI.hpp>
#include <array>
#include <memory>
#include <string>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"
#include "runtime/decoder.h"
#include "runtime/packed_weights.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::cli {

/// Of --attention, by runtime::AttentionForm.
inline constexpr std::array attention_names{"auto", "expanded", "absorbed"};

/// Options of the verbs that run a model natively.
struct ModelOptions {
    std::string path;
    runtime::DecoderOptions decoder;
};

/// MODEL, --weights, --output-weights, --packed, --kv-cache, --context, --attention.
void add_model_options(CLI::App& verb, ModelOptions& options);

/// An option whose value is "bf16" or "f32".
void add_dtype_option(CLI::App& verb, const std::string& name, core::DType& dtype, const std::string& description);

/// --kv-cache, alone.
void add_cache_option(CLI::App& verb, cache::CacheFormat& format);

/// Whether a context may be longer than the model was made for: its text would mean nothing, but it can be timed.
enum class ContextLimit { model, none };

/// --weights and --output-weights.
void add_weight_options(CLI::App& verb, runtime::DecoderOptions& options);

/// The formats that those two ask for.
runtime::WeightFormats weight_formats(const runtime::DecoderOptions& options);

/// As a text is scored: its tokens see what a decode step would find. Where nobody names a form of latent attention it
/// is the expanded one, since a measure must not depend on what the forms cost on a machine.
runtime::DecoderOptions for_scoring(runtime::DecoderOptions options);

/// The native decoder of a checkpoint. Its weights are mapped where the option names a packed file or one lies beside
/// the checkpoint, else packed.
std::unique_ptr<runtime::Decoder> load_decoder(const checkpoint::Checkpoint& model, runtime::DecoderOptions options,
                                               Session& session, ContextLimit limit = ContextLimit::model);

/// The tokenizer of a checkpoint.
std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const checkpoint::Checkpoint& model);

}  // namespace mha2mla::cli
