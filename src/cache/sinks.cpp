#include "cache/sinks.h"

#include <algorithm>
#include <utility>

namespace mha2mla::cache {

Sinks::Sinks(const SinkFormat& format, SinkUse& use)
    : format_(&format), use_(&use), memory_(std::make_unique<std::byte[]>(format.bytes())) {
    ++use_->sequences;
}

Sinks::~Sinks() {
    if (use_ == nullptr) return;
    --use_->sequences;
    use_->rows -= rows_;
}

Sinks::Sinks(const Sinks& other) {
    if (other.format_ == nullptr) return;
    Sinks copy(*other.format_, *other.use_);
    copy.set_tokens(other.rows_);
    std::copy_n(other.memory_.get(), other.allocated_bytes(), copy.memory_.get());
    swap(copy);
}

void Sinks::swap(Sinks& other) noexcept {
    std::swap(format_, other.format_);
    std::swap(use_, other.use_);
    std::swap(rows_, other.rows_);
    std::swap(memory_, other.memory_);
}

std::byte* Sinks::row(int layer, int plane, std::int64_t token) const {
    const Plane& of_plane = format_->layer.planes[static_cast<std::size_t>(plane)];
    // A plane's offset counts the page_tokens rows of those before it.
    const std::size_t row_bytes_before = static_cast<std::size_t>(layer) * format_->layer.bytes_per_token() +
                                         of_plane.offset_bytes / static_cast<std::size_t>(page_tokens);
    return memory_.get() + static_cast<std::size_t>(format_->tokens) * row_bytes_before +
           static_cast<std::size_t>(token) * of_plane.row_bytes;
}

void Sinks::set_tokens(std::int64_t tokens) {
    if (format_ == nullptr) return;
    const std::int64_t rows = std::min(tokens, format_->tokens);
    use_->rows += rows - rows_;
    rows_ = rows;
}

std::size_t Sinks::used_bytes() const {
    return format_ == nullptr ? 0 : static_cast<std::size_t>(rows_) * format_->bytes_per_token();
}

}  // namespace mha2mla::cache
