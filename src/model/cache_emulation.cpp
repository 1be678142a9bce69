#include "model/cache_emulation.h"

#include <ATen/Parallel.h>
#include <cstdint>
#include <span>
#include <vector>

#include "core/error.h"

namespace mha2mla::model {
namespace {

/// Quantizes and de-quantizes in place.
void round_rows(std::span<float> rows, std::size_t width, const cache::GroupFormat& format) {
    std::vector<std::uint8_t> codes(width);
    std::vector<cache::GroupScale> scales(format.groups(width));
    for (std::size_t first = 0; first < rows.size(); first += width) {
        const auto row = rows.subspan(first, width);
        cache::quantize_row(format, row, codes, scales);
        cache::dequantize_row(format, codes, scales, row);
    }
}

torch::Dtype torch_type(core::DType dtype) {
    core::invariant(dtype != core::DType::f16, "cached rows are bf16 or f32");
    return dtype == core::DType::bf16 ? torch::kBFloat16 : torch::kFloat32;
}

}  // namespace

torch::Tensor through_cache(const torch::Tensor& x, const cache::RowFormat& format) {
    core::invariant(!(torch::GradMode::is_enabled() && x.requires_grad()), "no gradient passes an emulated cache");
    if (!format.codes) return x.to(torch_type(format.dtype)).to(x.scalar_type());
    if (x.numel() == 0) return x;
    const auto rows = x.detach().to(torch::kCPU, torch::kFloat32).contiguous().clone();
    const std::int64_t width = rows.size(-1);
    float* const data = rows.data_ptr<float>();
    constexpr std::int64_t rows_of_a_task = 256;
    at::parallel_for(0, rows.numel() / width, rows_of_a_task, [&](std::int64_t begin, std::int64_t end) {
        round_rows({data + begin * width, data + end * width}, static_cast<std::size_t>(width), *format.codes);
    });
    return rows.to(x.device(), x.scalar_type());
}

}  // namespace mha2mla::model
