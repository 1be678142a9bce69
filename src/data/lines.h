#pragma once

#include <string>
#include <string_view>

#include "core/function_ref.h"
#include "core/json.h"

namespace mha2mla::data {

/// Calls visit for each line that is not empty, without its end. `where` is "name, line 3".
void for_each_line(std::string_view text, const std::string& name,
                   core::FunctionRef<void(std::string_view line, const std::string& where)> visit);

/// Calls visit for the JSON object of each line that is not empty; its where() is as above. Throws Error for a line
/// that is no object.
void for_each_json_line(std::string_view text, const std::string& name,
                        core::FunctionRef<void(const core::JsonObject& line)> visit);

}  // namespace mha2mla::data
