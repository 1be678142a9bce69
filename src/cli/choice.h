#pragma once

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <string>
#include <vector>

namespace mha2mla::cli {

/// For CLI::Option::transform: takes one of these names for a value of an enumeration. Anything else is refused with
/// all of them.
template <typename Enum>
CLI::Validator choice_of(const std::map<std::string, Enum>& choices) {
    const auto read = [choices](std::string& text) -> std::string {
        const auto found = choices.find(text);
        if (found != choices.end()) {
            text = std::to_string(static_cast<int>(found->second));
            return {};
        }
        std::vector<std::string> names;
        for (const auto& [name, value] : choices) names.push_back(name);
        return fmt::format("not a choice, expected {}, got '{}'", fmt::join(names, ", "), text);
    };
    return CLI::Validator(read, "", "choice");
}

}  // namespace mha2mla::cli
