#include "checkpoint/rank_table.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "checkpoint/pickle.h"
#include "checkpoint/tensors.h"
#include "checkpoint/zip.h"
#include "core/error.h"
#include "core/file.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::int64_t max_layers = 1024;
constexpr std::int64_t max_heads = 4096;
constexpr std::int64_t max_head_dim = 512;  // ranks of pairs fit a byte

using ZipEntries = std::map<std::string, std::span<const std::byte>, std::less<>>;

[[noreturn]] void fail(const std::string& where, std::string what, std::string expected = {}, std::string got = {}) {
    throw core::Error({.what = std::move(what),
                       .expected = std::move(expected),
                       .got = std::move(got),
                       .where = where,
                       .remedy = "pass a rank table as the MHA2MLA reference publishes it"});
}

/// PyTorch puts everything under one folder whose name varies: "archive/data.pkl" -> "archive/".
std::string find_prefix(const ZipEntries& entries, const std::string& where) {
    constexpr std::string_view pickle_name = "data.pkl";
    for (const auto& [name, bytes] : entries) {
        if (name == pickle_name || name.ends_with("/data.pkl")) return name.substr(0, name.size() - pickle_name.size());
    }
    fail(where, "is no PyTorch file (no data.pkl in the archive)");
}

void check_byte_order(const ZipEntries& entries, const std::string& prefix, const std::string& where) {
    const auto found = entries.find(prefix + "byteorder");
    if (found == entries.end()) return;
    constexpr std::string_view little = "little";
    if (found->second.size() == little.size() && std::memcmp(found->second.data(), little.data(), little.size()) == 0) {
        return;
    }
    fail(where, "was written in another byte order", "little");
}

void check_tensor(const PickleTensor& tensor, const std::string& where) {
    const auto& shape = tensor.shape;
    const bool fits = shape.size() == 3 && shape[0] >= 1 && shape[0] <= max_layers && shape[1] >= 1 &&
                      shape[1] <= max_heads && shape[2] >= 2 && shape[2] <= max_head_dim && shape[2] % 2 == 0;
    if (!fits) fail(where, "tensor has the wrong shape", "[layers, kv_heads, head_dim]", to_string(shape));
    if (tensor.storage.type != "torch.ByteStorage") {
        fail(where, "tensor has the wrong type", "torch.ByteStorage", tensor.storage.type);
    }
    if (tensor.strides != std::vector<std::int64_t>{shape[1] * shape[2], shape[2], 1}) {
        fail(where, "tensor is not contiguous");
    }
}

/// The bytes of a contiguous tensor of bytes.
std::span<const std::byte> tensor_bytes(const PickleTensor& tensor, const ZipEntries& entries,
                                        const std::string& prefix, const std::string& where) {
    const auto found = entries.find(prefix + "data/" + tensor.storage.key);
    if (found == entries.end()) fail(where, fmt::format("storage '{}' is missing", tensor.storage.key));
    const auto storage = found->second;
    const auto count = static_cast<std::size_t>(element_count(tensor.shape));
    const auto offset = static_cast<std::size_t>(tensor.offset);
    if (tensor.offset < 0 || offset > storage.size() || count > storage.size() - offset) {
        fail(where, "tensor exceeds its storage", fmt::format("{} bytes at {}", count, tensor.offset),
             fmt::format("{} bytes", storage.size()));
    }
    return storage.subspan(offset, count);
}

/// Each head ranks its pairs 0..P-1, every rank once, both halves alike.
bool is_ranking(const RankTable& table, int layer, int head) {
    const int pairs = table.head_dim / 2;
    std::vector<bool> seen(static_cast<std::size_t>(pairs), false);
    for (int pair = 0; pair < pairs; ++pair) {
        const int rank = table.at(layer, head, pair);
        if (rank >= pairs || table.at(layer, head, pair + pairs) != rank) return false;
        if (seen[static_cast<std::size_t>(rank)]) return false;
        seen[static_cast<std::size_t>(rank)] = true;
    }
    return true;
}

void check_ranks(const RankTable& table, const std::string& where) {
    for (int layer = 0; layer < table.layers; ++layer) {
        for (int head = 0; head < table.kv_heads; ++head) {
            if (is_ranking(table, layer, head)) continue;
            fail(where, fmt::format("layer {}, head {} is not a ranking", layer, head),
                 fmt::format("every rank from 0 to {} once in each half, both halves alike", table.head_dim / 2 - 1));
        }
    }
}

}  // namespace

RankTable parse_rank_table(std::span<const std::byte> file, const std::string& where) {
    const auto entries = read_zip(file, where);
    const auto prefix = find_prefix(entries, where);
    check_byte_order(entries, prefix, where);
    const auto pickle = parse_pickle(entries.find(prefix + "data.pkl")->second, where);
    const auto* tensor = std::get_if<PickleTensor>(&pickle.values[pickle.root]);
    if (tensor == nullptr) fail(where, "does not hold one tensor");
    check_tensor(*tensor, where);
    const auto bytes = tensor_bytes(*tensor, entries, prefix, where);
    RankTable table{.layers = static_cast<int>(tensor->shape[0]),
                    .kv_heads = static_cast<int>(tensor->shape[1]),
                    .head_dim = static_cast<int>(tensor->shape[2])};
    table.rank.resize(bytes.size());
    std::memcpy(table.rank.data(), bytes.data(), bytes.size());
    check_ranks(table, where);
    return table;
}

RankTable read_rank_table(const std::filesystem::path& path) {
    const core::MappedFile file(path);
    return parse_rank_table(file.bytes(), path.string());
}

}  // namespace mha2mla::checkpoint
