#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/file.h"
#include "kernels/kernels.h"
#include "runtime/matrix.h"

namespace mha2mla::runtime {

/// How the matrices of a model are stored. What is derived from others while loading (the factors of latent attention)
/// is small, and bf16 where the layers are int8 or int4. bf16 stands for coded_bf16, too, which holds the same numbers.
struct WeightFormats {
    kernels::WeightFormat layers = kernels::WeightFormat::bf16;
    kernels::WeightFormat output = kernels::WeightFormat::bf16;  ///< embedding and output matrix

    bool operator==(const WeightFormats&) const = default;
};

/// "int8", or "int4-bf16" where the output matrix has another format than it has by default.
std::string name_of(const WeightFormats& formats);
/// The format of the output matrix that goes with one of the layers: int8 where those are int4, else the same.
kernels::WeightFormat default_output_format(kernels::WeightFormat layers);

struct MatrixShape {
    kernels::WeightFormat format;
    std::int64_t outputs;
    std::int64_t inputs;
};

struct NamedMatrix {
    std::string name;
    kernels::PackedMatrix matrix;

    std::size_t bytes() const { return bytes_of(matrix); }
};

/// What the file of a model's packed weights says. Points into the file's bytes.
///
/// The file: "mha2mla" and a zero; the version and the bytes of the header as 32-bit numbers; the header's fingerprint,
/// 16 hexadecimal digits; the header, a JSON object; and from multiples of 64 bytes on the matrices, as the kernels
/// read them. Little-endian.
struct PackedIndex {
    std::string model;  ///< fingerprint
    std::string formats;
    std::map<std::string, kernels::PackedMatrix, std::less<>> matrices;
};

/// Checks everything but the matrices' numbers: sizes before they are used, every matrix within the file, none over
/// another, places of exceptions. `bytes` lie on a 64-byte boundary. Throws Error naming `where` and the remedy.
PackedIndex parse_packed_weights(std::span<const std::byte> bytes, const std::string& where);

/// A mapped file of packed weights that belongs to a model.
class PackedWeights {
public:
    /// Throws Error where the file is damaged, or was made from another model or in other formats.
    PackedWeights(const std::filesystem::path& path, const checkpoint::Checkpoint& model, const WeightFormats& formats);

    const kernels::PackedMatrix& find(const std::string& name, const MatrixShape& shape) const;

private:
    core::MappedFile file_;
    PackedIndex index_;
};

/// Tells models apart by what their tensors are called and hold: some rows of each are read, so that it takes
/// milliseconds.
std::string fingerprint(const checkpoint::Checkpoint& model);

/// Where a model's packed weights lie unless told otherwise: packed-int8.mha2mla in its directory, or
/// NAME.gguf.int8.mha2mla beside a GGUF file.
std::filesystem::path packed_weights_path(const checkpoint::Checkpoint& model, const WeightFormats& formats);

/// Writes the file; it appears complete or not at all, and replaces an older one. Throws Error naming the path.
void save_packed_weights(const std::filesystem::path& path, const checkpoint::Checkpoint& model,
                         const WeightFormats& formats, std::span<const NamedMatrix> matrices);

}  // namespace mha2mla::runtime
