#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace mha2mla::bench {

/// The middle one of at least one value; the larger middle one of an even number.
inline double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace mha2mla::bench
