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

/// Quantizes and de-quantizes the rows of a contiguous fp32 tensor on the CPU, in place.
void round_rows(const torch::Tensor& rows, const cache::GroupFormat& format) {
    if (rows.numel() == 0) return;
    const std::int64_t width = rows.size(-1);
    float* const data = rows.data_ptr<float>();
    constexpr std::int64_t rows_of_a_task = 256;
    at::parallel_for(0, rows.numel() / width, rows_of_a_task, [&](std::int64_t begin, std::int64_t end) {
        round_rows({data + begin * width, data + end * width}, static_cast<std::size_t>(width), format);
    });
}

/// The same where a row is a channel in the tokens of a full page. numbers [batch, tokens, ...].
void round_channels(const torch::Tensor& numbers, const cache::GroupFormat& format) {
    const std::int64_t pages = numbers.size(1) / cache::page_tokens;
    if (numbers.numel() == 0 || pages == 0) return;
    const auto full = numbers.slice(1, 0, pages * cache::page_tokens).flatten(2);
    const auto rows = full.unflatten(1, {pages, cache::page_tokens}).transpose(2, 3).contiguous();
    round_rows(rows, format);
    full.copy_(rows.transpose(2, 3).flatten(1, 2));
}

torch::Tensor rounded(const torch::Tensor& x, const cache::RowFormat& format) {
    const auto numbers = x.detach().to(torch_type(format.dtype));
    if (!format.codes) return numbers.to(x.scalar_type());
    const auto codes = numbers.to(torch::kCPU, torch::kFloat32, /*non_blocking=*/false, /*copy=*/true).contiguous();
    format.by_channel ? round_channels(codes, *format.codes) : round_rows(codes, *format.codes);
    return codes.to(x.device(), x.scalar_type());
}

struct StraightThrough : torch::autograd::Function<StraightThrough> {
    static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& x,
                                 const cache::RowFormat& format) {
        return rounded(x, format);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                   const torch::autograd::variable_list& gradients) {
        return {gradients[0], {}};
    }
};

}  // namespace

torch::Tensor through_cache(const torch::Tensor& x, const cache::RowFormat& format) {
    return StraightThrough::apply(x, format);
}

}  // namespace mha2mla::model
