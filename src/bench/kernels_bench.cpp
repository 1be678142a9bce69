#include "bench/kernels_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <new>
#include <span>

#include "cache/arena.h"
#include "cache/cache_format.h"
#include "cache/page_codec.h"
#include "cache/page_format.h"
#include "core/error.h"
#include "core/random.h"
#include "runtime/matrix.h"

namespace mha2mla::bench {
namespace {

using kernels::KernelSet;
using kernels::WeightFormat;

constexpr std::int64_t copies_bytes = std::int64_t{256} << 20;  // all copies of a case's data: larger than any cache
constexpr int passes = 5;

/// Zeroed memory on a cache line boundary.
class AlignedBytes {
public:
    explicit AlignedBytes(std::size_t bytes) : storage_(bytes + 64) {
        void* at = storage_.data();
        std::size_t space = storage_.size();
        data_ = static_cast<char*>(std::align(64, bytes, at, space));
    }
    char* data() const { return data_; }

private:
    std::vector<char> storage_;
    char* data_;
};

std::vector<float> random_floats(std::int64_t count) {
    core::Random random(1);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(2 * random.uniform() - 1);
    return values;
}

std::int64_t copies_of(std::int64_t bytes) { return std::max<std::int64_t>(1, copies_bytes / bytes); }

/// Something to check and time.
class Case {
public:
    virtual ~Case() = default;
    virtual double bytes() const = 0;  ///< read by one call
    virtual double flops() const = 0;
    virtual std::int64_t copies() const = 0;
    virtual void run(const KernelSet& set, std::int64_t copy, core::ThreadPool& pool) = 0;
    virtual std::span<const float> result() const = 0;
};

struct LinearShape {
    std::int64_t rows;
    std::int64_t inputs;
    std::int64_t outputs;
    kernels::WeightFormat format;
};

KernelTiming describe(const LinearShape& shape) {
    return {.kernel = "linear",
            .shape = fmt::format("{} x {} -> {} {}", shape.rows, shape.inputs, shape.outputs,
                                 kernels::name_of(shape.format)),
            .integer = kernels::is_grouped(shape.format)};
}

runtime::Matrix random_matrix(const LinearShape& shape, runtime::WeightMemory& memory) {
    const bool is_coded = shape.format == WeightFormat::coded_bf16;
    const std::vector<float> source = random_floats(shape.outputs * shape.inputs);
    const runtime::Matrix matrix(memory, is_coded ? WeightFormat::bf16 : shape.format, shape.outputs, shape.inputs);
    matrix.set_rows(0, shape.outputs, source.data());
    if (!is_coded) return matrix;
    core::ThreadPool pool(1);
    return runtime::Matrix::coded(memory, matrix, pool);
}

class LinearCase : public Case {
public:
    LinearCase(const LinearShape& shape, const core::ThreadPool& pool)
        : shape_(shape),
          weight_(random_matrix(shape, memory_).packed()),
          weight_bytes_(static_cast<std::int64_t>(runtime::bytes_of(weight_) + 63) / 64 * 64),
          scratch_bytes_(kernels::linear_scratch_bytes(shape.rows, shape.inputs)),
          x_(random_floats(shape.rows * shape.inputs)),
          y_(static_cast<std::size_t>(shape.rows * shape.outputs)),
          weights_(memory_.take(static_cast<std::size_t>(weight_bytes_ * copies_of(weight_bytes_)))),
          scratch_(scratch_bytes_ * static_cast<std::size_t>(pool.size())) {
        for (std::int64_t copy = 0; copy < copies(); ++copy) {
            std::memcpy(weights_ + copy * weight_bytes_, weight_.data, runtime::bytes_of(weight_));
        }
    }

    double bytes() const override { return static_cast<double>(weight_bytes_); }
    double flops() const override { return 2.0 * static_cast<double>(shape_.rows * shape_.inputs * shape_.outputs); }
    std::int64_t copies() const override { return copies_of(weight_bytes_); }
    std::span<const float> result() const override { return y_; }

    void run(const KernelSet& set, std::int64_t copy, core::ThreadPool& pool) override {
        kernels::PackedMatrix weight = weight_;
        weight.data = weights_ + copy * weight_bytes_;
        pool.run([&](int worker) {
            const std::int64_t begin = weight.tiles() * worker / pool.size();
            const std::int64_t end = weight.tiles() * (worker + 1) / pool.size();
            set.linear({.x = x_.data(),
                        .x_stride = shape_.inputs,
                        .rows = shape_.rows,
                        .weight = weight,
                        .y = y_.data(),
                        .y_stride = shape_.outputs,
                        .first_tile = begin,
                        .tiles = end - begin,
                        .scratch = scratch_.data() + static_cast<std::size_t>(worker) * scratch_bytes_});
        });
    }

private:
    LinearShape shape_;
    runtime::WeightMemory memory_;
    kernels::PackedMatrix weight_;
    std::int64_t weight_bytes_;  // of a copy
    std::size_t scratch_bytes_;
    std::vector<float> x_;
    std::vector<float> y_;
    std::byte* weights_;
    AlignedBytes scratch_;
};

struct AttentionShape {
    std::int64_t streams;  // KV heads, or latents
    std::int64_t rows;     // query rows of a stream
    std::int64_t key_width;
    std::int64_t value_width;
    std::int64_t tokens;  // whole pages
    bool latent;          // values are the first part of the keys
    std::string cache;    // as --kv-cache names it
};

/// All sets but the portable one multiply latents of 4 bits by channel as integers, AMX those of few rows.
KernelTiming describe(const AttentionShape& shape, kernels::Isa isa) {
    return {.kernel = "attention",
            .shape = fmt::format("{} x {} rows, keys {}, values {}, {} tokens {}", shape.streams, shape.rows,
                                 shape.key_width, shape.value_width, shape.tokens, shape.cache),
            .integer = isa != kernels::Isa::portable && shape.latent && shape.cache == "int4-c"};
}

/// Where a decoder's cache keeps such rows.
cache::PageFormat page_format(const AttentionShape& shape) {
    const auto format = cache::parse_cache_format(shape.cache, "bench");
    const auto width = static_cast<int>(shape.key_width);
    if (!shape.latent) return cache::grouped_query_format(format, static_cast<int>(shape.streams), width);
    const auto latent = static_cast<int>(shape.value_width);
    const auto streams = static_cast<int>(shape.streams);
    return cache::latent_format(format, streams * latent, streams * (width - latent), streams);
}

/// Random numbers as full pages, side by side.
std::vector<std::byte> random_pages(const cache::PageFormat& format, std::int64_t pages) {
    const std::size_t page_bytes = format.full_page_bytes();
    std::vector<std::byte> memory(page_bytes * static_cast<std::size_t>(pages));
    std::vector<core::bf16> exact(format.page_bytes() / sizeof(core::bf16));
    core::Random random(2);
    for (std::int64_t page = 0; page < pages; ++page) {
        for (auto& number : exact) number = core::to_bf16(static_cast<float>(2 * random.uniform() - 1));
        const auto* const rows = reinterpret_cast<const std::byte*>(exact.data());
        std::byte* const to = memory.data() + static_cast<std::size_t>(page) * page_bytes;
        if (format.seals()) {
            cache::seal_page(format, rows, to);
        } else {
            std::memcpy(to, rows, page_bytes);
        }
    }
    return memory;
}

class AttentionCase : public Case {
public:
    AttentionCase(const AttentionShape& shape, const core::ThreadPool& pool)
        : shape_(shape),
          format_(page_format(shape)),
          scratch_bytes_(kernels::attention_scratch_bytes(shape.rows, shape.key_width, shape.value_width)),
          q_(random_floats(all_rows() * shape.key_width)),
          visible_(static_cast<std::size_t>(shape.rows), shape.tokens),
          partial_(static_cast<std::size_t>(pool.size() * all_rows() * shape.value_width)),
          max_(static_cast<std::size_t>(pool.size() * all_rows())),
          sum_(max_.size()),
          out_(static_cast<std::size_t>(all_rows() * shape.value_width)),
          cache_(static_cast<std::size_t>(cache_bytes() * copies()), cache::PageSize::huge),
          scratch_(scratch_bytes_ * static_cast<std::size_t>(pool.size())) {
        const auto pages = random_pages(format_, pages_of_stream());
        for (std::int64_t copy = 0; copy < copies(); ++copy) {
            std::memcpy(cache_.data() + copy * cache_bytes(), pages.data(), pages.size());
        }
        add_blocks();
    }

    double bytes() const override { return static_cast<double>(cache_bytes()); }
    double flops() const override {
        return 2.0 * static_cast<double>(all_rows() * shape_.tokens * (shape_.key_width + shape_.value_width));
    }
    std::int64_t copies() const override { return copies_of(cache_bytes()); }
    std::span<const float> result() const override { return out_; }

    void run(const KernelSet& set, std::int64_t copy, core::ThreadPool& pool) override {
        pool.run([&](int worker) { attend(set, copy, worker, pool.size()); });
        set.merge({partial_.data(), max_.data(), sum_.data(), pool.size(), all_rows(), shape_.value_width, out_.data(),
                   shape_.value_width});
    }

private:
    std::int64_t all_rows() const { return shape_.streams * shape_.rows; }
    std::int64_t pages_of_stream() const { return shape_.tokens / cache::page_tokens; }
    std::int64_t cache_bytes() const {
        return pages_of_stream() * static_cast<std::int64_t>(format_.full_page_bytes());
    }
    int key_plane(std::int64_t stream) const {
        const int number = static_cast<int>(stream);
        return shape_.latent ? cache::latent_plane(number) : cache::key_plane(number);
    }
    int value_plane(std::int64_t stream) const {
        const int number = static_cast<int>(stream);
        return shape_.latent ? cache::latent_plane(number) : cache::value_plane(number);
    }
    const char* rows_of(std::int64_t page, int plane) const {
        const auto start = format_.seals() ? format_.sealed_start(plane)
                                           : format_.planes[static_cast<std::size_t>(plane)].offset_bytes;
        const std::byte* const at = cache_.data() + page * static_cast<std::int64_t>(format_.full_page_bytes()) + start;
        return reinterpret_cast<const char*>(at);
    }

    void add_blocks() {
        for (std::int64_t copy = 0; copy < copies(); ++copy) {
            for (std::int64_t stream = 0; stream < shape_.streams; ++stream) {
                for (std::int64_t page = 0; page < pages_of_stream(); ++page) {
                    const std::int64_t at = copy * pages_of_stream() + page;
                    blocks_.push_back({.keys = rows_of(at, key_plane(stream)),
                                       .values = rows_of(at, value_plane(stream)),
                                       .tokens = cache::page_tokens,
                                       .sealed = format_.seals()});
                }
            }
        }
    }

    /// One worker's share of the keys, for all streams.
    void attend(const KernelSet& set, std::int64_t copy, std::int64_t worker, std::int64_t workers) {
        for (std::int64_t stream = 0; stream < shape_.streams; ++stream) {
            const std::int64_t row = (worker * shape_.streams + stream) * shape_.rows;
            set.attention({.dtype = format_.dtype,
                           .q = q_.data() + stream * shape_.rows * shape_.key_width,
                           .q_stride = shape_.key_width,
                           .rows = shape_.rows,
                           .key_width = shape_.key_width,
                           .value_width = shape_.value_width,
                           .key_stride_bytes = static_cast<std::int64_t>(format_.planes.front().row_bytes),
                           .value_stride_bytes = static_cast<std::int64_t>(format_.planes.front().row_bytes),
                           .scale = 1.0f / std::sqrt(static_cast<float>(shape_.key_width)),
                           .blocks = blocks_.data() + (copy * shape_.streams + stream) * pages_of_stream(),
                           .block_tokens = cache::page_tokens,
                           .sealed = format_.sealed_format(key_plane(0), value_plane(0)),
                           .first_key = pages_of_stream() * worker / workers * cache::page_tokens,
                           .end_key = pages_of_stream() * (worker + 1) / workers * cache::page_tokens,
                           .visible = visible_.data(),
                           .out = partial_.data() + row * shape_.value_width,
                           .out_stride = shape_.value_width,
                           .max = max_.data() + row,
                           .sum = sum_.data() + row,
                           .scratch = scratch_.data() + static_cast<std::size_t>(worker) * scratch_bytes_});
        }
    }

    AttentionShape shape_;
    cache::PageFormat format_;
    std::size_t scratch_bytes_;
    std::vector<float> q_;
    std::vector<std::int64_t> visible_;
    std::vector<float> partial_, max_, sum_, out_;
    cache::Arena cache_;  // as the page pool has it: small pages end the processor's own prefetching every 4,096 bytes
    AlignedBytes scratch_;
    std::vector<kernels::KeyValueBlock> blocks_;
};

/// The plain caches of SmolLM2-135M, Llama-2-7B and Llama-3-8B, and the latents that stand for them: of Llama-2-7B
/// also in groups of heads.
std::vector<AttentionShape> attention_shapes() {
    constexpr std::int64_t tokens = 8192;
    std::vector<AttentionShape> shapes;
    for (const char* cache : {"bf16", "int8", "int4"}) {
        shapes.push_back({3, 3, 64, 64, tokens, false, cache});
        shapes.push_back({32, 1, 128, 128, tokens, false, cache});
        shapes.push_back({8, 4, 128, 128, tokens, false, cache});
    }
    for (const char* cache : {"bf16", "int8", "int8-c", "int4", "int4-c"}) {
        shapes.push_back({1, 9, 120, 96, tokens, true, cache});
        shapes.push_back({1, 32, 2560, 2048, tokens, true, cache});
        shapes.push_back({8, 4, 320, 256, tokens, true, cache});
        shapes.push_back({1, 32, 576, 512, tokens, true, cache});
    }
    return shapes;
}

std::string name_of(const KernelTiming& what) { return what.kernel + " " + what.shape; }

/// A kernel that computes something else is not worth timing.
void check(Case& test_case, const KernelTiming& what, const KernelSet& set, core::ThreadPool& pool) {
    test_case.run(kernels::kernels(kernels::Isa::portable), 0, pool);
    const std::vector<float> expected(test_case.result().begin(), test_case.result().end());
    test_case.run(set, 0, pool);
    float largest = 0;
    float difference = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        difference = std::max(difference, std::abs(expected[i] - test_case.result()[i]));
    }
    // Not "<", so that NaN fails as well.
    if (!(difference <= 0.02f * largest)) {
        throw core::Error({.what = "a kernel differs from the portable one",
                           .expected = fmt::format("at most {} apart", 0.02f * largest),
                           .got = fmt::format("{}", difference),
                           .where = name_of(what)});
    }
}

/// Fills in what `timing` describes.
KernelTiming time(Case& test_case, KernelTiming timing, const KernelSet& set, core::ThreadPool& pool) {
    for (int pass = 0; pass < passes; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        for (std::int64_t copy = 0; copy < test_case.copies(); ++copy) test_case.run(set, copy, pool);
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        const double seconds = elapsed.count() / static_cast<double>(test_case.copies());
        timing.seconds = pass == 0 ? seconds : std::min(timing.seconds, seconds);
    }
    timing.gigabytes_per_second = test_case.bytes() / timing.seconds / 1e9;
    timing.gigaflops_per_second = test_case.flops() / timing.seconds / 1e9;
    return timing;
}

std::vector<LinearShape> linear_shapes() {
    std::vector<LinearShape> shapes;
    for (const WeightFormat format :
         {WeightFormat::bf16, WeightFormat::coded_bf16, WeightFormat::int8, WeightFormat::int4}) {
        shapes.push_back({1, 576, 1536, format});
        shapes.push_back({1, 1536, 576, format});
        shapes.push_back({1, 576, 49152, format});
        shapes.push_back({8, 576, 1536, format});
        shapes.push_back({512, 576, 1536, format});
        shapes.push_back({512, 1536, 576, format});
    }
    return shapes;
}

/// Calls visit(description, function that makes the case) for those that `only` chooses.
template <typename Visit>
void for_each_case(kernels::Isa isa, std::string_view only, const core::ThreadPool& pool, const Visit& visit) {
    const auto is_chosen = [&](const KernelTiming& what) { return name_of(what).find(only) != std::string::npos; };
    for (const LinearShape& shape : linear_shapes()) {
        const KernelTiming what = describe(shape);
        if (is_chosen(what)) visit(what, [&] { return LinearCase(shape, pool); });
    }
    for (const AttentionShape& shape : attention_shapes()) {
        const KernelTiming what = describe(shape, isa);
        if (is_chosen(what)) visit(what, [&] { return AttentionCase(shape, pool); });
    }
}

}  // namespace

int count_kernels(kernels::Isa isa, std::string_view only, const core::ThreadPool& pool) {
    int count = 0;
    for_each_case(isa, only, pool, [&](const KernelTiming&, const auto&) { ++count; });
    return count;
}

std::vector<KernelTiming> bench_kernels(kernels::Isa isa, std::string_view only, core::ThreadPool& pool) {
    const KernelSet& set = kernels::kernels(isa);
    std::vector<KernelTiming> timings;
    for_each_case(isa, only, pool, [&](const KernelTiming& what, const auto& make) {
        auto test_case = make();
        check(test_case, what, set, pool);
        timings.push_back(time(test_case, what, set, pool));
    });
    return timings;
}

}  // namespace mha2mla::bench
