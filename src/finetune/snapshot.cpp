#include "finetune/snapshot.h"

#include <algorithm>
#include <climits>
#include <fmt/format.h>
#include <utility>

#include "checkpoint/safetensors.h"
#include "checkpoint/writer.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "model/weights.h"

namespace mha2mla::finetune {
namespace {

namespace fs = std::filesystem;

constexpr const char* position_file = "position.json";
constexpr std::size_t newest_kept = 2;

struct Part {
    checkpoint::TensorSpec spec;
    torch::Tensor parameter;
    torch::Tensor values;  // undefined for a moment that another process has
    bool is_moment = false;
};

/// Where the owned parameters lie in the optimizer's list.
std::size_t index_of(const torch::Tensor& parameter, const AdamW& optimizer) {
    const auto& owned = optimizer.parameters();
    const auto found =
        std::find_if(owned.begin(), owned.end(), [&](const auto& value) { return value.is_same(parameter); });
    return static_cast<std::size_t>(found - owned.begin());
}

/// The one list of what a snapshot consists of.
std::vector<Part> parts_of(const TrainingState& state) {
    std::vector<Part> parts;
    for (const auto& [name, parameter] : state.parameters) {
        const auto add = [&](const char* kind, const torch::Tensor& values, bool is_moment) {
            parts.push_back({{kind + name, parameter.sizes().vec()}, parameter, values, is_moment});
        };
        const auto index = index_of(parameter, state.optimizer);
        const bool owned = index < state.optimizer.parameters().size();
        add("weight/", parameter, false);
        if (!state.shards.owner_of(parameter)) continue;  // without moments in this stage
        add("first_moment/", owned ? state.optimizer.first_moments()[index] : torch::Tensor(), true);
        add("second_moment/", owned ? state.optimizer.second_moments()[index] : torch::Tensor(), true);
    }
    return parts;
}

std::string name_at(const Position& position) { return fmt::format("step-{:08}", position.step); }

/// A kill meanwhile leaves remains, and no snapshot that lacks something.
void remove_snapshot(const fs::path& snapshot) {
    const fs::path old = snapshot.string() + ".old";
    fs::rename(snapshot, old);
    fs::remove_all(old);
}

/// Its name has no further ending, as that of one that is being written or removed.
bool is_complete(const fs::path& path) { return !path.has_extension(); }

}  // namespace

Snapshots::Snapshots(fs::path directory, std::string request)
    : directory_(std::move(directory)), request_(std::move(request)) {
    std::error_code error;
    fs::create_directories(directory_, error);
    if (error) {
        throw core::Error({.what = "the directory cannot be made: " + error.message(), .where = directory_.string()});
    }
}

/// Snapshots, the oldest first, or remains of such.
std::vector<fs::path> Snapshots::entries(bool complete) const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(directory_)) {
        const bool is_step = entry.path().filename().string().starts_with("step-");
        if (is_step && is_complete(entry.path()) == complete) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
}

void Snapshots::remove_remains() const {
    for (const auto& path : entries(false)) fs::remove_all(path);
}

bool Snapshots::has(const Position& position) const {
    const auto snapshot = directory_ / name_at(position);
    return fs::exists(snapshot) && read_record(snapshot).position == position;
}

void Snapshots::save(const Position& position, const TrainingState& state, bool writes) {
    const auto parts = parts_of(state);
    std::vector<checkpoint::TensorSpec> specs;
    for (const auto& part : parts) specs.push_back(part.spec);
    const auto target = directory_ / name_at(position);
    std::optional<checkpoint::CheckpointWriter> writer;
    if (writes) {
        if (fs::exists(target)) remove_snapshot(target);  // of the same step before batches were left out
        writer.emplace(target, specs, checkpoint::WriterOptions{.dtype = core::DType::f32});
    }
    for (const auto& part : parts) {
        const auto values = part.is_moment ? state.shards.from_owner(part.parameter, part.values) : part.values;
        if (writes) model::write_tensor(values, *writer, part.spec);
    }
    if (!writes) return;
    const core::OrderedJson json{{"request", request_},
                                 {"stage", position.stage},
                                 {"stage_step", position.stage_step},
                                 {"step", position.step},
                                 {"tokens", position.tokens},
                                 {"left_out", position.left_out},
                                 {"optimizer_steps", state.optimizer.steps()}};
    writer->add_file(position_file, json.dump(2) + "\n");
    writer->finish();
    const auto all = entries(true);
    for (std::size_t i = 0; i + newest_kept < all.size(); ++i) remove_snapshot(all[i]);
}

Snapshots::Record Snapshots::read_record(const fs::path& snapshot) const {
    const auto file = snapshot / position_file;
    const auto json = core::parse_json(core::read_text(file, std::size_t{1} << 20), file.string());
    const core::JsonObject fields(json, file.string());
    if (fields.string("request") != request_) {
        throw core::Error({.what = "the snapshot is of a run with other models, text or options",
                           .expected = request_,
                           .got = fields.string("request"),
                           .where = file.string(),
                           .remedy = fmt::format("repeat the command that began it, or remove {} to start again",
                                                 directory_.string())});
    }
    return {.position = {.stage = static_cast<std::size_t>(fields.integer("stage", 0, INT_MAX)),
                         .stage_step = fields.integer("stage_step", 0, INT64_MAX),
                         .step = fields.integer("step", 0, INT64_MAX),
                         .tokens = fields.integer("tokens", 0, INT64_MAX),
                         .left_out = fields.integer("left_out", 0, INT64_MAX)},
            .optimizer_steps = fields.integer("optimizer_steps", 0, INT64_MAX)};
}

std::optional<Position> Snapshots::newest() const {
    const auto all = entries(true);
    if (all.empty()) return std::nullopt;
    return read_record(all.back()).position;
}

void Snapshots::load(const Position& position, const TrainingState& state) const {
    const torch::NoGradGuard no_gradients;
    const auto path = directory_ / name_at(position);
    state.optimizer.set_steps(read_record(path).optimizer_steps);
    const checkpoint::SafetensorsSource tensors(path);
    for (const auto& part : parts_of(state)) {
        if (part.values.defined()) part.values.copy_(model::read_tensor(tensors, part.spec, path.string()));
    }
}

}  // namespace mha2mla::finetune
