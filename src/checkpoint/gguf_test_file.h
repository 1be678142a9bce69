#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_metadata.h"

namespace mha2mla::checkpoint::test {

template <typename Number>
std::string raw(Number number) {
    return {reinterpret_cast<const char*>(&number), sizeof(Number)};
}

template <typename Number>
std::string raw(const std::vector<Number>& numbers) {
    return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(Number)};
}

inline std::string gguf_string(std::string_view text) { return raw(std::uint64_t{text.size()}) + std::string(text); }

inline std::string raw(GgufType type) { return raw(static_cast<std::uint32_t>(type)); }

/// Writes GGUF files as the format's description says, and wrong ones where a test asks for it.
class GgufFileWriter {
public:
    std::uint32_t version = 3;
    std::uint64_t extra_tensors = 0;  ///< claimed beyond those that are there
    std::uint64_t extra_pairs = 0;
    std::uint64_t alignment = 32;  ///< used for the layout; the metadata says what `u32("general.alignment")` says

    GgufFileWriter& pair(std::string_view key, GgufType type, const std::string& value) {
        pairs_.push_back(gguf_string(key) + raw(type) + value);
        return *this;
    }
    GgufFileWriter& u32(std::string_view key, std::uint32_t value) { return pair(key, GgufType::u32, raw(value)); }
    GgufFileWriter& f32(std::string_view key, float value) { return pair(key, GgufType::f32, raw(value)); }
    GgufFileWriter& boolean(std::string_view key, bool value) {
        return pair(key, GgufType::boolean, raw(static_cast<std::uint8_t>(value)));
    }
    GgufFileWriter& string(std::string_view key, std::string_view value) {
        return pair(key, GgufType::string, gguf_string(value));
    }
    GgufFileWriter& array(std::string_view key, GgufType item_type, std::uint64_t items, const std::string& bytes) {
        return pair(key, GgufType::array, raw(item_type) + raw(items) + bytes);
    }
    GgufFileWriter& strings(std::string_view key, const std::vector<std::string>& items) {
        std::string bytes;
        for (const auto& item : items) bytes += gguf_string(item);
        return array(key, GgufType::string, items.size(), bytes);
    }
    template <typename Number>
    GgufFileWriter& numbers(std::string_view key, GgufType item_type, const std::vector<Number>& items) {
        return array(key, item_type, items.size(), raw(items));
    }

    /// `dimensions` innermost first, as in the file.
    GgufFileWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                           const std::string& data) {
        const std::uint64_t offset = (data_.size() + alignment - 1) / alignment * alignment;
        info(name, dimensions, type, offset);
        data_.resize(offset, '\0');
        data_ += data;
        return *this;
    }
    GgufFileWriter& floats(std::string_view name, const std::vector<std::uint64_t>& dimensions,
                           const std::vector<float>& values) {
        return tensor(name, dimensions, 0, raw(values));
    }
    /// A tensor's entry in the header alone.
    GgufFileWriter& info(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                         std::uint64_t offset) {
        infos_.push_back(gguf_string(name) + raw(static_cast<std::uint32_t>(dimensions.size())) + raw(dimensions) +
                         raw(type) + raw(offset));
        return *this;
    }

    std::string bytes() const {
        std::string file =
            "GGUF" + raw(version) + raw(infos_.size() + extra_tensors) + raw(pairs_.size() + extra_pairs);
        for (const auto& pair : pairs_) file += pair;
        for (const auto& info : infos_) file += info;
        if (data_.empty()) return file;
        file.resize((file.size() + alignment - 1) / alignment * alignment, '\0');
        return file + data_;
    }

private:
    std::vector<std::string> pairs_;
    std::vector<std::string> infos_;
    std::string data_;
};

}  // namespace mha2mla::checkpoint::test
