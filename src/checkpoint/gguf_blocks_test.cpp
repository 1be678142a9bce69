#include "checkpoint/gguf_blocks.h"

#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>
#include <vector>

#include "core/file.h"
#include "core/json.h"

namespace mha2mla::checkpoint {
namespace {

std::vector<std::byte> from_hex(const std::string& text) {
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
    }
    return bytes;
}

core::Json fixture() {
    const auto path = std::filesystem::path(MHA2MLA_FIXTURES) / "gguf/blocks.json";
    return core::parse_json(core::read_text(path), path.string());
}

TEST(GgufBlocks, EveryTypeEqualsTheGgufPackageBitForBit) {
    const auto cases = fixture();
    EXPECT_EQ(cases.size(), 13u);
    for (const auto& [name, block_case] : cases.items()) {
        const auto* type = find_block_type(block_case["id"].get<std::uint32_t>());
        ASSERT_NE(type, nullptr) << name;
        EXPECT_EQ(type->name, name);
        const auto raw = from_hex(block_case["raw"].get<std::string>());
        const auto expected = from_hex(block_case["floats"].get<std::string>());
        const auto blocks = raw.size() / static_cast<std::size_t>(type->bytes);
        std::vector<float> floats(blocks * static_cast<std::size_t>(type->elements));
        ASSERT_EQ(floats.size() * sizeof(float), expected.size()) << name;
        type->dequantize(raw.data(), static_cast<std::int64_t>(blocks), floats.data());
        EXPECT_EQ(std::memcmp(floats.data(), expected.data(), expected.size()), 0) << name;
    }
}

TEST(GgufBlocks, CodesSayTheSameNumbers) {
    const auto cases = fixture();
    int coded = 0;
    for (const auto& [name, block_case] : cases.items()) {
        const auto* type = find_block_type(block_case["id"].get<std::uint32_t>());
        if (type->codes == nullptr) continue;
        ++coded;
        const auto raw = from_hex(block_case["raw"].get<std::string>());
        const auto blocks = raw.size() / static_cast<std::size_t>(type->bytes);
        std::vector<float> floats(blocks * 32);
        std::vector<core::CodeGroup> groups(blocks);
        type->dequantize(raw.data(), static_cast<std::int64_t>(blocks), floats.data());
        type->codes(raw.data(), static_cast<std::int64_t>(blocks), groups.data());
        for (std::size_t i = 0; i < floats.size(); ++i) {
            const core::CodeGroup& group = groups[i / 32];
            const int code = group.codes[i % 16] >> (i % 32 / 16 * 4) & 15;
            const float value = core::to_float(group.scale) * static_cast<float>(code) + core::to_float(group.minimum);
            ASSERT_EQ(value, floats[i]) << name << " element " << i;
        }
    }
    EXPECT_EQ(coded, 2) << "Q4_0 and Q4_1";
}

TEST(GgufBlocks, NamesTypesThatAreNotRead) {
    EXPECT_EQ(find_block_type(20), nullptr);
    EXPECT_EQ(stored_type_name(20), "IQ4_NL");
    EXPECT_EQ(stored_type_name(3), "Q4_1");
    EXPECT_EQ(stored_type_name(1000), "number 1000");
}

}  // namespace
}  // namespace mha2mla::checkpoint
