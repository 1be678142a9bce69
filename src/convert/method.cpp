#include "convert/method.h"

#include <array>

#include "convert/lsq_method.h"
#include "convert/lsq_sizes.h"
#include "convert/mha2mla_method.h"
#include "convert/transmla_method.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

/// The one list of methods.
constexpr std::array methods{
    Method{"mha2mla", false, lay_out_mha2mla, options_of_mha2mla, nullptr, nullptr, convert_mha2mla},
    Method{"lsq", true, lay_out_lsq, options_of_lsq, lsq_leaves_choices, alternatives_of_lsq, convert_lsq},
    Method{"transmla", true, lay_out_transmla, options_of_transmla, transmla_leaves_choices, alternatives_of_transmla,
           convert_transmla}};

}  // namespace

const Method& find_method(std::string_view name) {
    std::string known;
    for (const auto& method : methods) {
        if (method.name == name) return method;
        known += (known.empty() ? "" : ", ") + std::string(method.name);
    }
    throw core::Error({.what = "unknown conversion method",
                       .expected = known,
                       .got = "'" + std::string(name) + "'",
                       .where = "--method"});
}

}  // namespace mha2mla::convert
