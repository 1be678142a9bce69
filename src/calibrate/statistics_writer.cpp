#include "calibrate/statistics_writer.h"

#include <fmt/format.h>
#include <span>
#include <utility>

#include "calibrate/statistics_files.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/writer.h"
#include "core/error.h"
#include "core/file.h"
#include "model/weights.h"

namespace mha2mla::calibrate {
namespace {

namespace fs = std::filesystem;
using checkpoint::TensorSpec;

fs::path hidden_directory(const fs::path& directory, int layer) {
    return directory / fmt::format("hidden-{:03}", layer);
}

/// Windows' hidden states as tensors of a file.
std::vector<TensorSpec> hidden_specs(const std::vector<std::vector<int>>& windows,
                                     const std::vector<std::size_t>& share, std::int64_t width) {
    std::vector<TensorSpec> specs;
    for (const auto i : share) specs.push_back({fmt::format("window-{}", i), {std::ssize(windows[i]), width}});
    return specs;
}

std::span<float> values_of(const torch::Tensor& contiguous) {
    return {contiguous.data_ptr<float>(), static_cast<std::size_t>(contiguous.numel())};
}

/// What reads the remains of an interrupted run: where they are damaged, the error says what to do with them.
template <typename Read>
auto read_partial(const fs::path& partial, const Read& read) {
    try {
        return read();
    } catch (const core::Error& error) {
        auto info = error.info();
        info.remedy = fmt::format("remove {} to start again, or name another --statistics", partial.string());
        throw core::Error(info);
    }
}

}  // namespace

std::optional<data::TextWindows> interrupted_text(const fs::path& target, int vocab_size) {
    if (target.empty() || !fs::exists(core::partial_path(target))) return std::nullopt;
    const auto partial = core::partial_path(target);
    return read_partial(partial, [&] { return files::read_tokens(partial, vocab_size); });
}

StatisticsWriter::StatisticsWriter(const fs::path& target, const checkpoint::ModelConfig& config,
                                   const StatisticsOrigin& origin, const data::TextWindows& tokens,
                                   std::vector<std::size_t> share)
    : target_(target),
      partial_(core::partial_path(target)),
      config_(config),
      origin_(origin),
      tokens_(tokens),
      share_(std::move(share)) {
    if (fs::exists(partial_)) {
        read_partial(partial_, [&] { check(); });
    } else {
        create();
    }
}

void StatisticsWriter::create() const {
    core::StagedDirectory directory(partial_, false);
    files::write_origin(directory.path(), origin_, tokens_);
    directory.commit();
}

void StatisticsWriter::check() {
    files::check_origin(partial_, origin_);
    const auto found = files::read_text(partial_);
    if (found != origin_.text) {
        throw core::Error({.what = "an interrupted calibration on another text is here",
                           .expected = fmt::format("{} tokens of {}", origin_.text.tokens, origin_.text.origin),
                           .got = fmt::format("{} tokens of {}", found.tokens, found.origin),
                           .where = partial_.string()});
    }
    while (layers_ < config_.num_hidden_layers && fs::exists(files::layer_directory(partial_, layers_))) {
        files::check_layer(partial_, layers_++, config_);
    }
}

AttentionMoments StatisticsWriter::layer(int layer) const {
    core::invariant(layer < layers_, "only finished layers are read");
    return files::read_layer(partial_, layer, config_);
}

HiddenStates StatisticsWriter::hidden(const RestOptions& rest) const {
    return read_partial(partial_, [&] {
        const auto path = hidden_directory(partial_, layers_);
        const checkpoint::SafetensorsSource tensors(path);
        HiddenStates hidden(rest);
        for (const auto& spec : hidden_specs(tokens_.windows, share_, config_.hidden_size)) {
            hidden.append(model::read_tensor(tensors, spec, path.string()).unsqueeze(0));
        }
        return hidden;
    });
}

/// The inputs come first: the layer's directory says that all of it is there.
void StatisticsWriter::add(const AttentionMoments& moments, const HiddenStates& next_inputs) {
    core::invariant(next_inputs.windows() == share_.size(), "a walk keeps its windows");
    const auto next = hidden_directory(partial_, layers_ + 1);
    fs::remove_all(next);  // of a run that ended between the two
    const auto specs = hidden_specs(tokens_.windows, share_, config_.hidden_size);
    checkpoint::CheckpointWriter writer(next, specs, {.dtype = core::DType::bf16});
    for (std::size_t i = 0; i < specs.size(); ++i) writer.write(specs[i].name, values_of(next_inputs.get(i)));
    writer.finish();
    files::write_layer(partial_, layers_, moments, config_);
    fs::remove_all(hidden_directory(partial_, layers_));
    ++layers_;
}

void StatisticsWriter::finish() {
    core::invariant(layers_ == config_.num_hidden_layers, "every layer was measured");
    for (int layer = 0; layer <= layers_; ++layer) fs::remove_all(hidden_directory(partial_, layer));
    core::move_into_place(partial_, target_);
}

void StatisticsWriter::discard() { fs::remove_all(partial_); }

}  // namespace mha2mla::calibrate
