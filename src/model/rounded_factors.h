#pragma once

namespace mha2mla::model {

/// While one lives, products of floats on a CPU may round their factors to bf16; they add in fp32 all the same. The
/// setting is the whole process's: it changes with the first and after the last, so one that outlives threads keeps it
/// from changing under them.
class RoundedFactors {
public:
    RoundedFactors();
    ~RoundedFactors();
    RoundedFactors(const RoundedFactors&) = delete;
    RoundedFactors& operator=(const RoundedFactors&) = delete;
};

}  // namespace mha2mla::model
