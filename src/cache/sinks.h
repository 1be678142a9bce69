#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cache/page_format.h"

namespace mha2mla::cache {

/// The first tokens of a sequence that keep full keys and values, beside their rows in the pages.
struct SinkFormat {
    std::int64_t tokens = 0;  ///< 0: none
    int layers = 0;
    PageFormat layer;  ///< planes as of grouped_query_format, but of `tokens` rows

    std::size_t bytes_per_token() const { return static_cast<std::size_t>(layers) * layer.bytes_per_token(); }
    /// Of one sequence.
    std::size_t bytes() const { return static_cast<std::size_t>(tokens) * bytes_per_token(); }
};

/// What the sinks of all sequences hold together; for the statistics only.
struct SinkUse {
    std::size_t sequences = 0;
    std::int64_t rows = 0;  ///< that hold tokens
};

/// The sinks of one sequence, or none. A copy has memory of its own. Must not outlive format and use.
class Sinks {
public:
    Sinks() = default;
    /// `use` counts this object as long as it lives.
    Sinks(const SinkFormat& format, SinkUse& use);
    ~Sinks();
    Sinks(const Sinks& other);
    Sinks(Sinks&& other) noexcept { swap(other); }
    Sinks& operator=(Sinks other) noexcept {
        swap(other);
        return *this;
    }

    /// The row of a token below SinkFormat::tokens. Rows of one plane follow each other.
    std::byte* row(int layer, int plane, std::int64_t token) const;
    /// Tells of how many tokens the sequence now consists.
    void set_tokens(std::int64_t tokens);

    std::size_t allocated_bytes() const { return format_ == nullptr ? 0 : format_->bytes(); }
    std::size_t used_bytes() const;

private:
    void swap(Sinks& other) noexcept;

    const SinkFormat* format_ = nullptr;
    SinkUse* use_ = nullptr;
    std::int64_t rows_ = 0;  // that hold tokens
    std::unique_ptr<std::byte[]> memory_;
};

}  // namespace mha2mla::cache
