#include "runtime/packed_weights.h"

#include <fmt/format.h>
#include <set>
#include <vector>

#include "core/error.h"
#include "core/fingerprint.h"
#include "runtime/packed_header.h"

namespace mha2mla::runtime {
namespace {

namespace fs = std::filesystem;
using kernels::WeightFormat;

void add_text(core::Fingerprint& print, const std::string& text) {
    print.add(std::as_bytes(std::span(text)));
    print.add(std::uint64_t{text.size()});
}

/// Its first, middle and last row.
void add_rows(core::Fingerprint& print, const checkpoint::TensorSource& tensors, const checkpoint::TensorSpec& spec) {
    const std::int64_t rows = spec.shape.empty() ? 1 : spec.shape[0];
    std::vector<float> row(static_cast<std::size_t>(checkpoint::element_count(spec.shape) / rows));
    for (const std::int64_t index : std::set{std::int64_t{0}, rows / 2, rows - 1}) {
        tensors.read_rows(spec.name, index, 1, row);
        print.add(std::as_bytes(std::span(row)));
    }
}

std::filesystem::path beside(const fs::path& path, const char* suffix) { return path.string() + suffix; }

}  // namespace

std::string name_of(const WeightFormats& formats) {
    const std::string layers(kernels::name_of(formats.layers));
    if (formats.output == default_output_format(formats.layers)) return layers;
    return layers + "-" + std::string(kernels::name_of(formats.output));
}

WeightFormat default_output_format(WeightFormat layers) {
    return layers == WeightFormat::int4 ? WeightFormat::int8 : layers;
}

std::string fingerprint(const checkpoint::Checkpoint& model) {
    core::Fingerprint print;
    for (const auto& spec : model.tensors().list()) {
        add_text(print, spec.name);
        add_text(print, model.tensors().stored_type(spec.name));
        add_text(print, checkpoint::to_string(spec.shape));
        if (checkpoint::element_count(spec.shape) > 0) add_rows(print, model.tensors(), spec);
    }
    return print.hex();
}

fs::path packed_weights_path(const checkpoint::Checkpoint& model, const WeightFormats& formats) {
    const std::string name = name_of(formats);
    if (fs::is_directory(model.path())) return model.path() / fmt::format("packed-{}.mha2mla", name);
    return beside(model.path(), fmt::format(".{}.mha2mla", name).c_str());
}

PackedWeights::PackedWeights(const fs::path& path, const checkpoint::Checkpoint& model, const WeightFormats& formats)
    : file_(path), index_(parse_packed_weights(file_.bytes(), path.string())) {
    const auto check = [&](const char* what, const std::string& expected, const std::string& got) {
        if (expected != got) refuse_packed_weights({.what = what, .expected = expected, .got = got}, path.string());
    };
    check("the packed weights have another format", name_of(formats), index_.formats);
    check("the packed weights were made from another model, or from an earlier state of it", fingerprint(model),
          index_.model);
}

const kernels::PackedMatrix& PackedWeights::find(const std::string& name, const MatrixShape& shape) const {
    const auto text = [](const auto& m) {
        return fmt::format("{} [{}, {}]", kernels::name_of(m.format), m.outputs, m.inputs);
    };
    const auto found = index_.matrices.find(name);
    const std::string got = found == index_.matrices.end() ? "none" : text(found->second);
    const bool is_coded = shape.format == WeightFormat::bf16 &&
                          got == text(MatrixShape{WeightFormat::coded_bf16, shape.outputs, shape.inputs});
    if (got != text(shape) && !is_coded) {
        refuse_packed_weights(
            {.what = fmt::format("the packed weights lack the matrix '{}'", name), .expected = text(shape), .got = got},
            file_.path().string());
    }
    return found->second;
}

void save_packed_weights(const fs::path& path, const checkpoint::Checkpoint& model, const WeightFormats& formats,
                         std::span<const NamedMatrix> matrices) {
    const fs::path staged = beside(path, ".partial");
    std::error_code error;
    try {
        core::OutputFile file(staged);
        const PackedLayout layout = packed_layout({.model = fingerprint(model), .formats = name_of(formats)}, matrices);
        file.write_at(0, std::as_bytes(std::span(layout.head)));
        for (std::size_t i = 0; i < matrices.size(); ++i) {
            file.write_at(layout.offsets[i],
                          {static_cast<const std::byte*>(matrices[i].matrix.data), matrices[i].bytes()});
        }
        file.sync_and_close();
    } catch (...) {
        fs::remove(staged, error);
        throw;
    }
    fs::rename(staged, path, error);
    if (!error) return;
    throw core::Error(
        {.what = fmt::format("cannot put the packed weights in place ({})", error.message()), .where = path.string()});
}

}  // namespace mha2mla::runtime
