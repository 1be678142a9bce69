#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::core {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

/// Parses text from outside. Depth is bounded, duplicate keys and trailing garbage are errors. `where` names the
/// source.
Json parse_json(std::string_view text, const std::string& where);

/// A JSON object read field by field; every failure names file and field. Does not own the value.
class JsonObject {
public:
    JsonObject(const Json& object, std::string where);

    bool has(const char* key) const;  ///< present and not null
    const Json& raw(const char* key) const;
    JsonObject object(const char* key) const;

    std::int64_t integer(const char* key, std::int64_t min, std::int64_t max) const;
    double number(const char* key) const;  ///< finite
    bool boolean(const char* key) const;
    std::string string(const char* key) const;
    std::vector<std::int64_t> integers(const char* key, std::int64_t min, std::int64_t max) const;
    std::vector<std::string> strings(const char* key) const;

    std::int64_t integer_or(const char* key, std::int64_t fallback, std::int64_t min, std::int64_t max) const;
    double number_or(const char* key, double fallback) const;
    bool boolean_or(const char* key, bool fallback) const;
    std::string string_or(const char* key, const std::string& fallback) const;

    const std::string& where() const { return where_; }
    [[noreturn]] void fail(const char* key, const std::string& expected) const;

private:
    const Json* object_;
    std::string where_;
};

}  // namespace mha2mla::core
