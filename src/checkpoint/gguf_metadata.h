#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_reader.h"

namespace mha2mla::checkpoint {

/// Types of metadata values, with the numbers of the format.
enum class GgufType : std::uint32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12
};

/// A value as it lies in the file, its extent checked; decoded when asked for.
struct GgufValue {
    GgufType type = GgufType::u8;
    GgufType item_type = GgufType::u8;      ///< of an array
    std::uint64_t items = 0;                ///< of an array
    std::span<const std::byte> bytes = {};  ///< the value, or an array's items
};

/// The key-value pairs of a GGUF file. Values of any integer type are read as integers, F32 and F64 as numbers; every
/// failure names file and key. Points into the file's bytes.
class GgufMetadata {
public:
    explicit GgufMetadata(std::string where) : where_(std::move(where)) {}

    /// Reads one pair. Throws Error on a key that was there before.
    void read_pair(GgufReader& reader);

    bool has(std::string_view key) const { return values_.contains(key); }
    std::vector<std::string_view> keys() const;

    std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max) const;
    /// Finite. An F32 is read as the shortest decimal that rounds to it: what the source's config.json said.
    double number(std::string_view key) const;
    bool boolean(std::string_view key) const;
    std::string_view string(std::string_view key) const;
    std::vector<std::string_view> strings(std::string_view key) const;
    std::vector<std::int64_t> integers(std::string_view key, std::int64_t min, std::int64_t max) const;
    std::vector<double> numbers(std::string_view key) const;

    std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max) const {
        return has(key) ? integer(key, min, max) : fallback;
    }
    double number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }
    bool boolean_or(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }

    const std::string& where() const { return where_; }
    [[noreturn]] void fail(std::string_view key, const std::string& expected, const std::string& got = {}) const;

private:
    const GgufValue& value(std::string_view key) const;
    const GgufValue& array(std::string_view key, const char* expected) const;

    std::string where_;
    std::map<std::string_view, GgufValue> values_;
};

}  // namespace mha2mla::checkpoint
