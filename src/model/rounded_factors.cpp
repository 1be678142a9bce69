#include "model/rounded_factors.h"

#include <ATen/Context.h>
#include <mutex>

namespace mha2mla::model {
namespace {

constexpr auto backend = at::Float32Backend::MKLDNN;
constexpr auto operation = at::Float32Op::MATMUL;

struct Setting {
    std::mutex mutex;
    int users = 0;
    at::Float32Precision before = at::Float32Precision::NONE;
};

Setting& setting() {
    static Setting one;
    return one;
}

}  // namespace

RoundedFactors::RoundedFactors() {
    const std::lock_guard lock(setting().mutex);
    if (setting().users++ > 0) return;
    setting().before = at::globalContext().float32Precision(backend, operation);
    at::globalContext().setFloat32Precision(backend, operation, at::Float32Precision::BF16);
}

RoundedFactors::~RoundedFactors() {
    const std::lock_guard lock(setting().mutex);
    if (--setting().users == 0) at::globalContext().setFloat32Precision(backend, operation, setting().before);
}

}  // namespace mha2mla::model
