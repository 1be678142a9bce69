#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <set>

#include "core/error.h"

namespace mha2mla::core {
namespace {

constexpr int max_depth = 64;

/// Refuses deep nesting and repeated keys while nlohmann's parser walks the text.
class StrictCallback {
public:
    explicit StrictCallback(const std::string& where) : where_(where) {}

    bool operator()(int depth, Json::parse_event_t event, Json& value) {
        if (depth > max_depth) throw Error({.what = "JSON is nested too deeply", .where = where_});
        if (event == Json::parse_event_t::object_start) keys_.emplace_back();
        if (event == Json::parse_event_t::object_end) keys_.pop_back();
        if (event == Json::parse_event_t::key && !keys_.back().insert(value.get<std::string>()).second) {
            throw Error(
                {.what = fmt::format("JSON key '{}' appears twice", value.get<std::string>()), .where = where_});
        }
        return true;
    }

private:
    const std::string& where_;
    std::vector<std::set<std::string>> keys_;
};

std::string range(std::int64_t min, std::int64_t max) { return fmt::format("an integer from {} to {}", min, max); }

bool fits(const Json& value, std::int64_t min, std::int64_t max) {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX) return false;
    const auto number = value.get<std::int64_t>();
    return number >= min && number <= max;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
    try {
        return Json::parse(text.begin(), text.end(), StrictCallback(where));
    } catch (const Json::exception& error) {
        throw Error({.what = fmt::format("not valid JSON ({})", error.what()), .where = where});
    }
}

JsonObject::JsonObject(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {
    if (!object.is_object()) throw Error({.what = "not a JSON object", .got = object.type_name(), .where = where_});
}

bool JsonObject::has(const char* key) const {
    const auto field = object_->find(key);
    return field != object_->end() && !field->is_null();
}

const Json& JsonObject::raw(const char* key) const {
    if (!has(key)) throw Error({.what = fmt::format("field '{}' is missing", key), .where = where_});
    return *object_->find(key);
}

JsonObject JsonObject::object(const char* key) const { return {raw(key), fmt::format("{}, '{}'", where_, key)}; }

std::int64_t JsonObject::integer(const char* key, std::int64_t min, std::int64_t max) const {
    const auto& value = raw(key);
    if (!fits(value, min, max)) fail(key, range(min, max));
    return value.get<std::int64_t>();
}

double JsonObject::number(const char* key) const {
    const auto& value = raw(key);
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail(key, "a finite number");
    return value.get<double>();
}

bool JsonObject::boolean(const char* key) const {
    const auto& value = raw(key);
    if (!value.is_boolean()) fail(key, "true or false");
    return value.get<bool>();
}

std::string JsonObject::string(const char* key) const {
    const auto& value = raw(key);
    if (!value.is_string()) fail(key, "a string");
    return value.get<std::string>();
}

std::vector<std::int64_t> JsonObject::integers(const char* key, std::int64_t min, std::int64_t max) const {
    const auto& value = raw(key);
    if (!value.is_array()) fail(key, "an array of integers");
    std::vector<std::int64_t> numbers;
    numbers.reserve(value.size());
    for (const auto& item : value) {
        if (!fits(item, min, max)) fail(key, "an array, each item " + range(min, max));
        numbers.push_back(item.get<std::int64_t>());
    }
    return numbers;
}

std::vector<std::string> JsonObject::strings(const char* key) const {
    const auto& value = raw(key);
    const bool usable =
        value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_string(); });
    if (!usable) fail(key, "an array of strings");
    return value.get<std::vector<std::string>>();
}

std::int64_t JsonObject::integer_or(const char* key, std::int64_t fallback, std::int64_t min, std::int64_t max) const {
    return has(key) ? integer(key, min, max) : fallback;
}

double JsonObject::number_or(const char* key, double fallback) const { return has(key) ? number(key) : fallback; }

bool JsonObject::boolean_or(const char* key, bool fallback) const { return has(key) ? boolean(key) : fallback; }

std::string JsonObject::string_or(const char* key, const std::string& fallback) const {
    return has(key) ? string(key) : fallback;
}

void JsonObject::fail(const char* key, const std::string& expected) const {
    std::string got = raw(key).dump(-1, ' ', false, Json::error_handler_t::replace);
    if (got.size() > 80) got = got.substr(0, 77) + "...";
    throw Error({.what = fmt::format("field '{}' is not usable", key),
                 .expected = expected,
                 .got = std::move(got),
                 .where = where_});
}

}  // namespace mha2mla::core
