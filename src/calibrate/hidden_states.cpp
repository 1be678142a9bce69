#include "calibrate/hidden_states.h"

#include <cstdint>
#include <span>

#include "core/error.h"

namespace mha2mla::calibrate {
namespace {

using torch::Tensor;

std::span<std::byte> bytes_of(const Tensor& contiguous) {
    return {static_cast<std::byte*>(contiguous.data_ptr()), contiguous.nbytes()};
}

}  // namespace

void HiddenStates::append(const Tensor& hidden_BTE) {
    Slot slot{.tokens = hidden_BTE.size(1), .width = hidden_BTE.size(2), .file_offset = 0, .states = {}};
    const auto bytes = static_cast<std::size_t>(slot.tokens * slot.width) * sizeof(std::int16_t);
    if (bytes <= options_.memory_bytes - memory_bytes_) {
        slot.states = torch::empty(hidden_BTE.sizes(), torch::kBFloat16);
        memory_bytes_ += bytes;
    } else {
        if (!file_) file_.emplace(options_.spill_directory);
        slot.file_offset = file_bytes_;
        file_bytes_ += bytes;
    }
    rest(slot, hidden_BTE);
    slots_.push_back(slot);
}

void HiddenStates::replace(std::size_t window, const Tensor& hidden_BTE) {
    auto& slot = slots_.at(window);
    core::invariant(hidden_BTE.size(1) == slot.tokens && hidden_BTE.size(2) == slot.width, "a window keeps its shape");
    rest(slot, hidden_BTE);
}

void HiddenStates::rest(Slot& slot, const Tensor& hidden_BTE) {
    if (slot.states.defined()) {
        slot.states.copy_(hidden_BTE);
    } else {
        file_->write_at(slot.file_offset, bytes_of(hidden_BTE.to(torch::kCPU, torch::kBFloat16).contiguous()));
    }
}

Tensor HiddenStates::get(std::size_t window) const {
    const auto& slot = slots_.at(window);
    if (slot.states.defined()) return slot.states.to(torch::kFloat32);
    const auto states = torch::empty({1, slot.tokens, slot.width}, torch::kBFloat16);
    file_->read_at(slot.file_offset, bytes_of(states));
    return states.to(torch::kFloat32);
}

}  // namespace mha2mla::calibrate
