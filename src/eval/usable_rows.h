#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/function_ref.h"
#include "core/json.h"

namespace mha2mla::eval {

/// Calls `check(row)` and then `take(row, its number from 1)` for the object in each of the first `limit` lines of a
/// file (0: all) that are not empty. An Error of `take`, and a line that is no object, leaves the row out: these errors
/// are returned, each naming its line. An Error of `check` is the file's. Throws Error where no row is left.
std::vector<std::string> for_each_usable_row(const std::filesystem::path& path, int limit,
                                             core::FunctionRef<void(const core::JsonObject& row, int number)> take,
                                             core::FunctionRef<void(const core::JsonObject& row)> check);

}  // namespace mha2mla::eval
