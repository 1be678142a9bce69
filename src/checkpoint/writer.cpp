#include "checkpoint/writer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <set>

#include "checkpoint/shard_plan.h"
#include "core/error.h"

namespace mha2mla::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t values_per_write = std::size_t{1} << 18;

core::bf16 encode(float value, core::bf16) { return core::to_bf16(value); }
core::f16 encode(float value, core::f16) { return core::to_f16(value); }
float encode(float value, float) { return value; }

/// Rounds the values into `bytes`. False where one is not finite after rounding.
template <typename Stored>
bool encode(std::span<const float> values, std::vector<std::byte>& bytes) {
    bytes.resize(values.size() * sizeof(Stored));
    bool finite = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const Stored stored = encode(values[i], Stored{});
        finite &= std::abs(core::to_float(stored)) <= std::numeric_limits<float>::max();
        std::memcpy(bytes.data() + i * sizeof(Stored), &stored, sizeof(Stored));
    }
    return finite;
}

bool encode(core::DType dtype, std::span<const float> values, std::vector<std::byte>& bytes) {
    switch (dtype) {
        case core::DType::f32: return encode<float>(values, bytes);
        case core::DType::f16: return encode<core::f16>(values, bytes);
        case core::DType::bf16: return encode<core::bf16>(values, bytes);
    }
    return false;
}

/// Whether a directory holds a model that this program wrote, and nothing else.
bool is_written_model(const fs::path& directory) {
    const auto has = [&](const char* name) { return fs::exists(directory / name); };
    if (!has("config.json") || !(has("conversion.json") || has("finetune.json"))) return false;
    const std::set<std::string> kinds{".json", ".jsonl", ".svg", ".safetensors", ".model", ".md", ".jinja", ".mha2mla"};
    return std::all_of(
        fs::directory_iterator(directory), fs::directory_iterator(), [&](const fs::directory_entry& entry) {
            const auto& path = entry.path();
            return entry.is_regular_file() && (kinds.contains(path.extension()) || path.filename() == "merges.txt");
        });
}

/// `--force` replaces a converted model or an empty directory, never a source or what holds something else.
const fs::path& check_replaceable(const fs::path& target, bool replace) {
    std::error_code error;
    if (!replace || !fs::exists(target, error)) return target;
    if (fs::is_directory(target, error) && (fs::is_empty(target, error) || is_written_model(target))) return target;
    throw core::Error({.what = "exists and holds something else than a converted model, so it is not replaced",
                       .where = target.string(),
                       .remedy = "choose another name"});
}

void check_space(const fs::path& directory, const fs::path& target, std::int64_t bytes) {
    std::error_code error;
    const auto space = fs::space(directory, error);
    if (error || space.available >= static_cast<std::uintmax_t>(bytes)) return;
    constexpr double gigabyte = 1e9;
    throw core::Error({.what = "not enough free disk space",
                       .expected = fmt::format("{:.2f} GB", static_cast<double>(bytes) / gigabyte),
                       .got = fmt::format("{:.2f} GB", static_cast<double>(space.available) / gigabyte),
                       .where = target.string(),
                       .remedy = "free some space or choose another disk"});
}

bool is_plain_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

}  // namespace

void check_target(const fs::path& target, bool replace) {
    const core::StagedDirectory created_and_removed(check_replaceable(target, replace), replace);
}

struct CheckpointWriter::Impl {
    struct Tensor {
        PlannedTensor plan;
        std::vector<bool> row_written;
        std::int64_t width = 0;  // values in a row
    };

    Impl(const fs::path& target, std::vector<TensorSpec> specs, const WriterOptions& options);
    Tensor& find(std::string_view name);
    void claim_rows(Tensor& tensor, std::int64_t first_row, std::int64_t rows);
    void write(const Tensor& tensor, std::int64_t first_value, std::span<const float> values);

    core::DType dtype;
    core::StagedDirectory directory;
    ShardPlan plan;
    std::vector<core::OutputFile> files;  // one per shard
    std::map<std::string, Tensor, std::less<>> tensors;
    std::vector<std::byte> buffer;
};

CheckpointWriter::Impl::Impl(const fs::path& target, std::vector<TensorSpec> specs, const WriterOptions& options)
    : dtype(options.dtype),
      directory(check_replaceable(target, options.replace), options.replace),
      plan(plan_shards(std::move(specs), options.dtype, options.max_shard_bytes)) {
    check_space(directory.path(), target, plan.total_bytes);
    for (const auto& shard : plan.shards) {
        auto& file = files.emplace_back(directory.path() / shard.file_name);
        file.write_at(0, std::as_bytes(std::span(shard.header)));
    }
    for (const auto& planned : plan.tensors) {
        const auto rows = planned.spec.shape.empty() ? 1 : planned.spec.shape[0];
        core::invariant(rows > 0, "a declared tensor has rows");
        Tensor tensor{planned, std::vector<bool>(static_cast<std::size_t>(rows)), 0};
        tensor.width = element_count(planned.spec.shape) / rows;
        const bool added = tensors.emplace(planned.spec.name, std::move(tensor)).second;
        core::invariant(added, "a tensor is declared once");
    }
}

CheckpointWriter::Impl::Tensor& CheckpointWriter::Impl::find(std::string_view name) {
    const auto found = tensors.find(name);
    core::invariant(found != tensors.end(), "only declared tensors are written");
    return found->second;
}

void CheckpointWriter::Impl::claim_rows(Tensor& tensor, std::int64_t first_row, std::int64_t rows) {
    const auto total = static_cast<std::int64_t>(tensor.row_written.size());
    core::invariant(first_row >= 0 && first_row <= total - rows, "written rows lie within the tensor");
    const auto begin = tensor.row_written.begin() + first_row;
    core::invariant(std::find(begin, begin + rows, true) == begin + rows, "every row is written once");
    std::fill(begin, begin + rows, true);
}

void CheckpointWriter::Impl::write(const Tensor& tensor, std::int64_t first_value, std::span<const float> values) {
    const auto& shard = plan.shards[tensor.plan.shard];
    std::size_t offset = shard.header.size() + static_cast<std::size_t>(tensor.plan.begin) +
                         static_cast<std::size_t>(first_value) * core::size_of(dtype);
    while (!values.empty()) {
        const auto part = values.first(std::min(values.size(), values_per_write));
        if (!encode(dtype, part, buffer)) {
            throw core::Error({.what = fmt::format("tensor '{}' would hold values that are not finite in {}",
                                                   tensor.plan.spec.name, core::name_of(dtype)),
                               .where = shard.file_name});
        }
        files[tensor.plan.shard].write_at(offset, buffer);
        offset += buffer.size();
        values = values.subspan(part.size());
    }
}

CheckpointWriter::CheckpointWriter(const fs::path& target, std::vector<TensorSpec> tensors,
                                   const WriterOptions& options)
    : impl_(std::make_unique<Impl>(target, std::move(tensors), options)) {}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::write(std::string_view name, std::span<const float> values) {
    const auto& tensor = impl_->find(name);
    const auto rows = static_cast<std::int64_t>(tensor.row_written.size());
    core::invariant(static_cast<std::int64_t>(values.size()) == rows * tensor.width, "a whole tensor is written");
    write_rows(name, 0, values);
}

void CheckpointWriter::write_rows(std::string_view name, std::int64_t first_row, std::span<const float> values) {
    auto& tensor = impl_->find(name);
    const auto count = static_cast<std::int64_t>(values.size());
    core::invariant(tensor.width > 0 && count % tensor.width == 0, "whole rows are written");
    impl_->claim_rows(tensor, first_row, count / tensor.width);
    impl_->write(tensor, first_row * tensor.width, values);
}

void CheckpointWriter::add_file(const std::string& name, std::string_view contents) {
    core::invariant(is_plain_name(name), "a file's name is a plain name");
    core::write_text(impl_->directory.path() / name, contents);
}

void CheckpointWriter::finish() {
    for (const auto& [name, tensor] : impl_->tensors) {
        const auto& rows = tensor.row_written;
        core::invariant(std::find(rows.begin(), rows.end(), false) == rows.end(), "every declared tensor is written");
    }
    for (auto& file : impl_->files) file.sync_and_close();
    if (impl_->files.size() > 1) add_file("model.safetensors.index.json", impl_->plan.index_json());
    impl_->directory.commit();
}

}  // namespace mha2mla::checkpoint
