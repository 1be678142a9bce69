#include "bench/kernels_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <new>
#include <span>

#include "core/error.h"
#include "core/random.h"
#include "runtime/matrix.h"

namespace mha2mla::bench {
namespace {

using core::DType;
using kernels::KernelSet;
using kernels::WeightFormat;

constexpr std::int64_t page_tokens = 64;
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
    virtual KernelTiming describe() const = 0;
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

class LinearCase : public Case {
public:
    LinearCase(const LinearShape& shape, const core::ThreadPool& pool)
        : shape_(shape),
          weight_bytes_(static_cast<std::int64_t>(kernels::packed_bytes(shape.format, shape.outputs, shape.inputs))),
          scratch_bytes_(kernels::linear_scratch_bytes(shape.rows, shape.inputs)),
          x_(random_floats(shape.rows * shape.inputs)),
          y_(static_cast<std::size_t>(shape.rows * shape.outputs)),
          weights_(memory_.take(static_cast<std::size_t>(weight_bytes_ * copies_of(weight_bytes_)))),
          scratch_(scratch_bytes_ * static_cast<std::size_t>(pool.size())) {
        const std::vector<float> source = random_floats(shape.outputs * shape.inputs);
        kernels::pack_rows({source.data(), 0, shape.outputs, shape.format, shape.inputs, weights_});
        for (std::int64_t copy = 1; copy < copies(); ++copy) {
            std::memcpy(weights_ + copy * weight_bytes_, weights_, static_cast<std::size_t>(weight_bytes_));
        }
    }

    KernelTiming describe() const override {
        return {.kernel = "linear",
                .shape = fmt::format("{} x {} -> {} {}", shape_.rows, shape_.inputs, shape_.outputs,
                                     kernels::name_of(shape_.format)),
                .integer = kernels::is_grouped(shape_.format)};
    }
    double bytes() const override { return static_cast<double>(weight_bytes_); }
    double flops() const override { return 2.0 * static_cast<double>(shape_.rows * shape_.inputs * shape_.outputs); }
    std::int64_t copies() const override { return copies_of(weight_bytes_); }
    std::span<const float> result() const override { return y_; }

    void run(const KernelSet& set, std::int64_t copy, core::ThreadPool& pool) override {
        const std::int64_t tiles = (shape_.outputs + kernels::tile_rows - 1) / kernels::tile_rows;
        pool.run([&](int worker) {
            const std::int64_t begin = tiles * worker / pool.size();
            const std::int64_t end = tiles * (worker + 1) / pool.size();
            set.linear({.x = x_.data(),
                        .x_stride = shape_.inputs,
                        .rows = shape_.rows,
                        .weight = {shape_.format, shape_.outputs, shape_.inputs, weights_ + copy * weight_bytes_},
                        .y = y_.data(),
                        .y_stride = shape_.outputs,
                        .first_tile = begin,
                        .tiles = end - begin,
                        .scratch = scratch_.data() + static_cast<std::size_t>(worker) * scratch_bytes_});
        });
    }

private:
    LinearShape shape_;
    std::int64_t weight_bytes_;
    std::size_t scratch_bytes_;
    std::vector<float> x_;
    std::vector<float> y_;
    runtime::WeightMemory memory_;
    std::byte* weights_;
    AlignedBytes scratch_;
};

struct AttentionShape {
    std::int64_t streams;  // KV heads, or one latent
    std::int64_t rows;     // query rows of a stream
    std::int64_t key_width;
    std::int64_t value_width;
    std::int64_t tokens;  // whole pages
    bool latent;          // values are the first part of the keys
};

class AttentionCase : public Case {
public:
    AttentionCase(const AttentionShape& shape, const core::ThreadPool& pool)
        : shape_(shape),
          row_bytes_((shape.key_width + (shape.latent ? 0 : shape.value_width)) * 2),
          stream_bytes_(shape.tokens * row_bytes_),
          scratch_bytes_(kernels::attention_scratch_bytes(shape.rows, shape.key_width, shape.value_width)),
          q_(random_floats(all_rows() * shape.key_width)),
          visible_(static_cast<std::size_t>(shape.rows), shape.tokens),
          partial_(static_cast<std::size_t>(pool.size() * all_rows() * shape.value_width)),
          max_(static_cast<std::size_t>(pool.size() * all_rows())),
          sum_(max_.size()),
          out_(static_cast<std::size_t>(all_rows() * shape.value_width)),
          cache_(static_cast<std::size_t>(stream_bytes_ * shape.streams * copies())),
          scratch_(scratch_bytes_ * static_cast<std::size_t>(pool.size())) {
        const std::vector<float> source = random_floats(stream_bytes_ * shape.streams / 2);
        auto* rows = reinterpret_cast<core::bf16*>(cache_.data());
        for (std::size_t i = 0; i < source.size(); ++i) rows[i] = core::to_bf16(source[i]);
        const std::int64_t copy_bytes = stream_bytes_ * shape.streams;
        for (std::int64_t copy = 1; copy < copies(); ++copy) {
            std::memcpy(cache_.data() + copy * copy_bytes, cache_.data(), static_cast<std::size_t>(copy_bytes));
        }
        add_blocks();
    }

    KernelTiming describe() const override {
        return {.kernel = "attention",
                .shape = fmt::format("{} x {} rows, keys {}, values {}, {} tokens bf16", shape_.streams, shape_.rows,
                                     shape_.key_width, shape_.value_width, shape_.tokens)};
    }
    double bytes() const override { return static_cast<double>(stream_bytes_ * shape_.streams); }
    double flops() const override {
        return 2.0 * static_cast<double>(all_rows() * shape_.tokens * (shape_.key_width + shape_.value_width));
    }
    std::int64_t copies() const override { return copies_of(stream_bytes_ * shape_.streams); }
    std::span<const float> result() const override { return out_; }

    void run(const KernelSet& set, std::int64_t copy, core::ThreadPool& pool) override {
        pool.run([&](int worker) { attend(set, copy, worker, pool.size()); });
        set.merge({partial_.data(), max_.data(), sum_.data(), pool.size(), all_rows(), shape_.value_width, out_.data(),
                   shape_.value_width});
    }

private:
    std::int64_t all_rows() const { return shape_.streams * shape_.rows; }
    std::int64_t blocks_of_stream() const { return shape_.tokens / page_tokens; }

    /// Pages as the decoder's cache has them: for each stream a plane of keys, then a plane of values.
    void add_blocks() {
        for (std::int64_t stream = 0; stream < shape_.streams * copies(); ++stream) {
            for (std::int64_t token = 0; token < shape_.tokens; token += page_tokens) {
                const char* keys = cache_.data() + stream * stream_bytes_ + token * row_bytes_;
                const char* values = shape_.latent ? keys : keys + page_tokens * shape_.key_width * 2;
                blocks_.push_back({keys, values, page_tokens});
            }
        }
    }

    /// One worker's share of the keys, for all streams.
    void attend(const KernelSet& set, std::int64_t copy, std::int64_t worker, std::int64_t workers) {
        for (std::int64_t stream = 0; stream < shape_.streams; ++stream) {
            const std::int64_t row = (worker * shape_.streams + stream) * shape_.rows;
            set.attention({.dtype = DType::bf16,
                           .q = q_.data() + stream * shape_.rows * shape_.key_width,
                           .q_stride = shape_.key_width,
                           .rows = shape_.rows,
                           .key_width = shape_.key_width,
                           .value_width = shape_.value_width,
                           .key_stride_bytes = shape_.key_width * 2,
                           .value_stride_bytes = (shape_.latent ? shape_.key_width : shape_.value_width) * 2,
                           .scale = 1.0f / std::sqrt(static_cast<float>(shape_.key_width)),
                           .blocks = blocks_.data() + (copy * shape_.streams + stream) * blocks_of_stream(),
                           .block_tokens = page_tokens,
                           .first_key = blocks_of_stream() * worker / workers * page_tokens,
                           .end_key = blocks_of_stream() * (worker + 1) / workers * page_tokens,
                           .visible = visible_.data(),
                           .out = partial_.data() + row * shape_.value_width,
                           .out_stride = shape_.value_width,
                           .max = max_.data() + row,
                           .sum = sum_.data() + row,
                           .scratch = scratch_.data() + static_cast<std::size_t>(worker) * scratch_bytes_});
        }
    }

    AttentionShape shape_;
    std::int64_t row_bytes_;
    std::int64_t stream_bytes_;
    std::size_t scratch_bytes_;
    std::vector<float> q_;
    std::vector<std::int64_t> visible_;
    std::vector<float> partial_, max_, sum_, out_;
    AlignedBytes cache_;
    AlignedBytes scratch_;
    std::vector<kernels::KeyValueBlock> blocks_;
};

/// A kernel that computes something else is not worth timing.
void check(Case& test_case, const KernelSet& set, core::ThreadPool& pool) {
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
                           .where = test_case.describe().kernel + " " + test_case.describe().shape});
    }
}

KernelTiming time(Case& test_case, const KernelSet& set, core::ThreadPool& pool) {
    KernelTiming timing = test_case.describe();
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

KernelTiming check_and_time(Case&& test_case, const KernelSet& set, core::ThreadPool& pool) {
    check(test_case, set, pool);
    return time(test_case, set, pool);
}

}  // namespace

std::vector<KernelTiming> bench_kernels(kernels::Isa isa, core::ThreadPool& pool) {
    const KernelSet& set = kernels::kernels(isa);
    std::vector<KernelTiming> timings;
    for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
        for (const LinearShape& shape : {LinearShape{1, 576, 1536, format},
                                         {1, 1536, 576, format},
                                         {1, 576, 49152, format},
                                         {8, 576, 1536, format},
                                         {512, 576, 1536, format},
                                         {512, 1536, 576, format}}) {
            timings.push_back(check_and_time(LinearCase(shape, pool), set, pool));
        }
    }
    for (const AttentionShape& shape :
         {AttentionShape{1, 9, 120, 96, 4096, true}, {3, 3, 64, 64, 4096, false}, {9, 1, 64, 64, 4096, false}}) {
        timings.push_back(check_and_time(AttentionCase(shape, pool), set, pool));
    }
    return timings;
}

}  // namespace mha2mla::bench
