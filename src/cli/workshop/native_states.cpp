#include "cli/workshop/native_states.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "cli/model_options.h"
#include "runtime/decoder.h"

namespace mha2mla::cli {
namespace {

class NativeStates : public finetune::SourceStates {
public:
    explicit NativeStates(std::unique_ptr<runtime::Decoder> decoder) : decoder_(std::move(decoder)) {}

    void run(std::span<const int> window, core::FunctionRef<void(const finetune::SourceState&)> visit) override {
        auto sequence = decoder_->new_sequence();
        std::size_t count = 0;
        for (std::size_t first = 0; first < window.size(); first += count) {
            count = std::min(static_cast<std::size_t>(decoder_->pass_tokens(sequence.tokens())), window.size() - first);
            const auto show = [&](const runtime::LayerStates& states) {
                visit({.layer = states.layer,
                       .attended = states.attended,
                       .first_token = static_cast<int>(first),
                       .x_TE = states.x_TE});
            };
            decoder_->forward_states(sequence, window.subspan(first, count), show);
        }
    }

private:
    std::unique_ptr<runtime::Decoder> decoder_;
};

}  // namespace

std::unique_ptr<finetune::SourceStates> native_states(const checkpoint::Checkpoint& source, int window,
                                                      Session& session) {
    return std::make_unique<NativeStates>(load_decoder(source, {.context_tokens = window}, session));
}

}  // namespace mha2mla::cli
