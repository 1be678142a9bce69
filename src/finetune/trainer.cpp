#include "finetune/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <span>

#include "core/error.h"
#include "finetune/schedule.h"

namespace mha2mla::finetune {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t most_left_out = 2;  // on end

std::int64_t count_tokens(const std::vector<std::vector<Batch>>& plan) {
    std::int64_t tokens = 0;
    for (const auto& batches : plan) {
        for (const auto& batch : batches) tokens += batch.tokens;
    }
    return tokens;
}

/// Those that an objective reaches, in the order in which backward passes finish their gradients: from the last layer
/// on. Layerwise walks from the first one, and reaches attention alone.
std::vector<torch::Tensor> in_order_of_gradients(std::vector<NamedParameter> parameters, bool layerwise) {
    if (layerwise) {
        std::erase_if(parameters, [](const auto& parameter) { return !is_of_attention(parameter.name); });
    } else {
        std::reverse(parameters.begin(), parameters.end());
    }
    return values_of(parameters);
}

}  // namespace

Trainer::Trainer(Models& models, const std::vector<std::vector<int>>& windows, const Options& options,
                 const TrainerSetup& setup)
    : models_(models),
      windows_(windows),
      options_(options),
      setup_(setup),
      plan_(plan_batches(windows, options)),
      parameters_(choose_parameters(models.student, options.trained)),
      snapshots_(setup.directory, setup.request) {
    if (is_first()) snapshots_.remove_remains();
    begin(setup.resume ? snapshots_.newest() : std::nullopt);
}

/// Puts weights, optimizer and log where a snapshot says, or at the start.
void Trainer::begin(std::optional<Position> snapshot) {
    position_ = snapshot.value_or(Position{});
    check_position();
    enter_stage();
    if (snapshot) snapshots_.load(position_, {parameters_, *optimizer_, *shards_});
    log_.reset();
    log_ = std::make_unique<TrainingLog>(snapshots_.directory() / "log.jsonl", position_.step, is_first());
    if (!snapshot) save();
    saved_ = Clock::now();
}

/// A snapshot may be damaged, or not yet there for a machine that sees the directory through a network.
void Trainer::check_position() const {
    double steps = static_cast<double>(position_.step);
    setup_.processes->sum({&steps, 1});
    if (steps != static_cast<double>(position_.step * setup_.processes->size())) {
        throw core::Error({.what = "the processes see different snapshots",
                           .where = snapshots_.directory().string(),
                           .remedy = "put it where every machine sees it at once, and go on with --resume"});
    }
    const bool is_end = position_.stage == plan_.size() && position_.stage_step == 0;
    if (is_end || (position_.stage < plan_.size() && position_.stage_step < std::ssize(plan_[position_.stage]))) return;
    throw core::Error({.what = "the snapshot is at a step that the run does not have",
                       .got = fmt::format("stage {}, step {}", position_.stage, position_.stage_step),
                       .where = snapshots_.directory().string(),
                       .remedy = "remove it to start again"});
}

void Trainer::enter_stage() {
    optimizer_.reset();  // its moments and the gradients make room for the next one's
    shards_.reset();
    const bool at_end = position_.stage == plan_.size();
    if (!at_end) loss_ = make_loss(objective(), models_, options_);
    const bool layerwise = !at_end && objective() == Objective::layerwise;
    shards_ = std::make_unique<Shards>(in_order_of_gradients(parameters_, layerwise), *setup_.processes);
    optimizer_ = std::make_unique<AdamW>(shards_->owned(), AdamWOptions{.weight_decay = options_.weight_decay});
}

/// The same answer for every process.
bool Trainer::at_any(bool condition) const {
    double number = condition ? 1 : 0;
    setup_.processes->sum({&number, 1});
    return number > 0;
}

void Trainer::run(core::Progress& progress, const std::stop_token& stop) {
    const std::int64_t tokens_before = position_.tokens;
    progress.begin("fine-tuning", count_tokens(plan_) - tokens_before);
    while (position_.stage < plan_.size()) {
        if (at_any(stop.stop_requested())) {
            save();
            parallel::meet(*setup_.processes);  // none leaves, and ends the others, before the first one has written
            throw core::Cancelled();
        }
        train_batch();
        if (at_any(is_first() && Clock::now() - saved_ > setup_.save_every)) save();
        report(progress, tokens_before);
    }
    save();
    progress.end();
}

void Trainer::report(core::Progress& progress, std::int64_t tokens_before) const {
    if (log().empty()) return;
    const auto& last = log().back();
    const auto tokens = log().size() > 1 ? last.tokens - log()[log().size() - 2].tokens : last.tokens;
    progress.update(position_.tokens - tokens_before,
                    fmt::format("{}, loss {:.4g}, {:.0f} tokens/s", name_of(last.objective), last.loss,
                                static_cast<double>(tokens) / last.seconds));
}

void Trainer::train_batch() {
    const auto& batch = plan_[position_.stage][static_cast<std::size_t>(position_.stage_step)];
    const auto started = Clock::now();
    const Step step = compute_gradients(batch);
    if (is_odd(step)) {
        leave_out(step);
    } else {
        take_step(step, batch, started);
    }
    advance();
}

Trainer::Step Trainer::compute_gradients(const Batch& batch) {
    shards_->clear_gradients();
    std::int64_t counted = 0;
    for (const auto window : batch.windows) counted += loss_->count(std::ssize(windows_[window]));
    const auto at_once = static_cast<std::size_t>(options_.micro_batch);
    const torch::Device device(options_.device);
    const auto& processes = *setup_.processes;
    const auto passes = (batch.windows.size() + at_once - 1) / at_once;
    double loss = 0;
    parallel::for_each_share(processes, passes, [&](std::size_t i) {
        const bool is_last = i + static_cast<std::size_t>(processes.size()) >= passes;
        if (is_last) shards_->send_when_complete();
        const auto first = i * at_once;
        const auto chosen = std::span(batch.windows).subspan(first, std::min(at_once, batch.windows.size() - first));
        loss += loss_->accumulate(MicroBatch(windows_, chosen, device), 1.0 / static_cast<double>(counted));
    });
    shards_->collect();
    std::array<double, 2> sums{loss, squared_gradient_norm(optimizer_->parameters())};
    processes.sum(sums);
    return {sums[0], std::sqrt(sums[1])};
}

void Trainer::take_step(const Step& step, const Batch& batch, Clock::time_point started) {
    if (step.gradient_norm > options_.clip) {
        scale_gradients(optimizer_->parameters(), options_.clip / step.gradient_norm);
    }
    const double rate = learning_rate(options_.schedule, position_.stage_step, std::ssize(plan_[position_.stage]));
    optimizer_->step(rate);
    shards_->distribute();
    position_.tokens += batch.tokens;
    log_->add({.objective = objective(),
               .step = position_.step,
               .tokens = position_.tokens,
               .loss = step.loss,
               .gradient_norm = step.gradient_norm,
               .learning_rate = rate,
               .seconds = std::chrono::duration<double>(Clock::now() - started).count()});
    ++position_.step;
    position_.left_out = 0;
}

void Trainer::advance() {
    if (++position_.stage_step < std::ssize(plan_[position_.stage])) return;
    ++position_.stage;
    position_.stage_step = 0;
    enter_stage();
}

bool Trainer::is_odd(const Step& step) const {
    if (!std::isfinite(step.loss) || !std::isfinite(step.gradient_norm)) return true;
    return is_spike(log(), objective(), step.loss, step.gradient_norm);
}

/// The weights stay those of the last snapshot and the steps since: no need to go back and make these again. One odd
/// step comes of its text, several on end of the weights.
void Trainer::leave_out(const Step& step) {
    const auto what = fmt::format("step {} of {} has loss {:.4g} and a gradient of norm {:.4g}", position_.stage_step,
                                  name_of(objective()), step.loss, step.gradient_norm);
    if (++position_.left_out > most_left_out) {
        throw core::Error({.what = "training diverges: " + what + ", the third such step on end",
                           .where = snapshots_.directory().string(),
                           .remedy = "begin again with a smaller --learning-rate"});
    }
    if (setup_.note && is_first()) setup_.note(what + ": its batch is left out");
}

void Trainer::save() {
    log_->sync();
    if (at_any(is_first() && !snapshots_.has(position_))) {
        snapshots_.save(position_, {parameters_, *optimizer_, *shards_}, /*writes=*/is_first());
    }
    saved_ = Clock::now();
}

}  // namespace mha2mla::finetune
