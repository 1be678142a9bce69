#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensors.h"
#include "core/dtype.h"
#include "core/file.h"

namespace mha2mla::checkpoint {

struct WriterOptions {
    core::DType dtype = core::DType::bf16;
    std::int64_t max_shard_bytes = std::int64_t{4} << 30;
    bool replace = false;  ///< replace an existing target
};

/// Throws Error where `target` cannot be created or, with `replace`, replaced. The writer asks too; this asks before
/// long work.
void check_target(const std::filesystem::path& target, bool replace);

/// Writes a Hugging Face directory tensor by tensor. All tensors are declared first, so that headers and shard bounds
/// are known and nothing is buffered. Everything lands in a temporary directory; finish() checks, flushes and renames
/// it into place.
class CheckpointWriter {
public:
    CheckpointWriter(const std::filesystem::path& target, std::vector<TensorSpec> tensors,
                     const WriterOptions& options);
    ~CheckpointWriter();

    /// Writes one declared tensor, in any order, once.
    void write(std::string_view name, std::span<const float> values);
    /// Writes rows [first_row, ...) of a declared tensor, for tensors too large to hold. Every row must be written
    /// once.
    void write_rows(std::string_view name, std::int64_t first_row, std::span<const float> values);
    /// Adds a text file (config.json, tokenizer.json, README.md, conversion.json).
    void add_file(const std::string& name, std::string_view contents);
    /// Throws std::logic_error when a declared tensor was not written.
    void finish();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mha2mla::checkpoint
