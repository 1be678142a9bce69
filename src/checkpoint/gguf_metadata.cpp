#include "checkpoint/gguf_metadata.h"

#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <optional>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

constexpr int max_array_depth = 4;
constexpr std::size_t smallest_string = 8;  // its length alone

/// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
std::size_t fixed_size(GgufType type) {
    switch (type) {
        case GgufType::u8:
        case GgufType::i8:
        case GgufType::boolean: return 1;
        case GgufType::u16:
        case GgufType::i16: return 2;
        case GgufType::u32:
        case GgufType::i32:
        case GgufType::f32: return 4;
        case GgufType::u64:
        case GgufType::i64:
        case GgufType::f64: return 8;
        default: return 0;
    }
}

GgufType read_type(GgufReader& reader, std::string_view key) {
    const auto number = reader.number<std::uint32_t>();
    if (number > static_cast<std::uint32_t>(GgufType::f64)) {
        reader.fail(fmt::format("metadata key {} has the unknown type {}", quoted(key), number));
    }
    return static_cast<GgufType>(number);
}

class ValueReader {
public:
    ValueReader(GgufReader& reader, std::string_view key) : reader_(reader), key_(key) {}

    GgufValue read() { return read(read_type(reader_, key_), 0); }

private:
    GgufValue read(GgufType type, int depth) {
        if (type == GgufType::array) return read_array(depth + 1);
        const std::size_t begin = reader_.position();
        if (type == GgufType::string) {
            reader_.string();
        } else {
            reader_.take(fixed_size(type));
        }
        return {.type = type, .bytes = reader_.between(begin, reader_.position())};
    }

    GgufValue read_array(int depth) {
        if (depth > max_array_depth) {
            reader_.fail(fmt::format("the array of metadata key {} is nested too deeply", quoted(key_)));
        }
        const auto item_type = read_type(reader_, key_);
        const std::size_t size = fixed_size(item_type);
        const auto items = reader_.count(reader_.number<std::uint64_t>(), size > 0 ? size : smallest_string,
                                         fmt::format("items of {}", quoted(key_)));
        const std::size_t begin = reader_.position();
        if (size > 0) {
            reader_.take(items * size);
        } else {
            for (std::uint64_t i = 0; i < items; ++i) read(item_type, depth);
        }
        return {.type = GgufType::array,
                .item_type = item_type,
                .items = items,
                .bytes = reader_.between(begin, reader_.position())};
    }

    GgufReader& reader_;
    std::string_view key_;
};

std::optional<std::int64_t> to_integer(GgufType type, const std::byte* data) {
    switch (type) {
        case GgufType::u8: return load<std::uint8_t>(data);
        case GgufType::i8: return load<std::int8_t>(data);
        case GgufType::u16: return load<std::uint16_t>(data);
        case GgufType::i16: return load<std::int16_t>(data);
        case GgufType::u32: return load<std::uint32_t>(data);
        case GgufType::i32: return load<std::int32_t>(data);
        case GgufType::i64: return load<std::int64_t>(data);
        case GgufType::u64: {
            const auto number = load<std::uint64_t>(data);
            if (number > INT64_MAX) return std::nullopt;
            return static_cast<std::int64_t>(number);
        }
        default: return std::nullopt;
    }
}

/// 1e-05 for the float 9.99999974e-06.
double shortest_decimal(float number) {
    const std::string text = fmt::format("{}", number);
    double decimal = number;
    std::from_chars(text.data(), text.data() + text.size(), decimal);
    return decimal;
}

std::optional<double> to_number(GgufType type, const std::byte* data) {
    double number = 0;
    if (type == GgufType::f64) {
        number = load<double>(data);
    } else if (type == GgufType::f32) {
        number = shortest_decimal(load<float>(data));
    } else {
        return std::nullopt;
    }
    return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::string range(std::int64_t min, std::int64_t max) { return fmt::format("an integer from {} to {}", min, max); }

}  // namespace

void GgufMetadata::read_pair(GgufReader& reader) {
    const auto key = reader.string();
    const auto value = ValueReader(reader, key).read();
    if (!values_.emplace(key, value).second) reader.fail(fmt::format("metadata key {} appears twice", quoted(key)));
}

std::vector<std::string_view> GgufMetadata::keys() const {
    std::vector<std::string_view> keys;
    for (const auto& [key, value] : values_) keys.push_back(key);
    return keys;
}

const GgufValue& GgufMetadata::value(std::string_view key) const {
    const auto found = values_.find(key);
    if (found != values_.end()) return found->second;
    throw core::Error({.what = fmt::format("metadata key {} is missing", quoted(key)), .where = where_});
}

const GgufValue& GgufMetadata::array(std::string_view key, const char* expected) const {
    const auto& found = value(key);
    if (found.type != GgufType::array) fail(key, expected);
    return found;
}

std::int64_t GgufMetadata::integer(std::string_view key, std::int64_t min, std::int64_t max) const {
    const auto& found = value(key);
    const auto number = to_integer(found.type, found.bytes.data());
    if (!number) fail(key, range(min, max));
    if (*number < min || *number > max) fail(key, range(min, max), fmt::format("{}", *number));
    return *number;
}

double GgufMetadata::number(std::string_view key) const {
    const auto& found = value(key);
    const auto number = to_number(found.type, found.bytes.data());
    if (!number) fail(key, "a finite floating-point number");
    return *number;
}

bool GgufMetadata::boolean(std::string_view key) const {
    const auto& found = value(key);
    if (found.type != GgufType::boolean) fail(key, "true or false");
    return load<std::uint8_t>(found.bytes.data()) != 0;
}

std::string_view GgufMetadata::string(std::string_view key) const {
    const auto& found = value(key);
    if (found.type != GgufType::string) fail(key, "a string");
    return GgufReader(found.bytes, where_).string();
}

std::vector<std::string_view> GgufMetadata::strings(std::string_view key) const {
    constexpr const char* expected = "an array of strings";
    const auto& found = array(key, expected);
    if (found.item_type != GgufType::string) fail(key, expected);
    GgufReader reader(found.bytes, where_);
    std::vector<std::string_view> items;
    items.reserve(found.items);
    for (std::uint64_t i = 0; i < found.items; ++i) items.push_back(reader.string());
    return items;
}

std::vector<std::int64_t> GgufMetadata::integers(std::string_view key, std::int64_t min, std::int64_t max) const {
    const auto& found = array(key, "an array of integers");
    const std::size_t size = fixed_size(found.item_type);
    std::vector<std::int64_t> items;
    items.reserve(size > 0 ? found.items : 0);
    for (std::uint64_t i = 0; i < found.items; ++i) {
        const auto number = to_integer(found.item_type, found.bytes.data() + i * size);
        if (!number || *number < min || *number > max) fail(key, "an array, each item " + range(min, max));
        items.push_back(*number);
    }
    return items;
}

std::vector<double> GgufMetadata::numbers(std::string_view key) const {
    const auto& found = array(key, "an array of floating-point numbers");
    const std::size_t size = fixed_size(found.item_type);
    std::vector<double> items;
    items.reserve(size > 0 ? found.items : 0);
    for (std::uint64_t i = 0; i < found.items; ++i) {
        const auto number = to_number(found.item_type, found.bytes.data() + i * size);
        if (!number) fail(key, "an array of finite floating-point numbers");
        items.push_back(*number);
    }
    return items;
}

void GgufMetadata::fail(std::string_view key, const std::string& expected, const std::string& got) const {
    throw core::Error({.what = fmt::format("metadata key {} is not usable", quoted(key)),
                       .expected = expected,
                       .got = got,
                       .where = where_});
}

}  // namespace mha2mla::checkpoint
