#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace mha2mla::checkpoint {

/// The 2-norm rank table published with the MHA2MLA reference: the rank of every dimension in its KV head, 0 = most
/// important.
struct RankTable {
    int layers = 0;
    int kv_heads = 0;
    int head_dim = 0;
    std::vector<std::uint8_t> rank = {};  ///< [layers, kv_heads, head_dim]; both halves of a pair carry the same rank

    int at(int layer, int kv_head, int dim) const {
        return rank[(static_cast<std::size_t>(layer) * static_cast<std::size_t>(kv_heads) +
                     static_cast<std::size_t>(kv_head)) *
                        static_cast<std::size_t>(head_dim) +
                    static_cast<std::size_t>(dim)];
    }
};

/// Reads a .pth file (PyTorch zip). Its pickle may hold tensors and plain containers; any other opcode or class is an
/// Error.
RankTable read_rank_table(const std::filesystem::path& path);

/// The same from the file's bytes; `where` names it in errors.
RankTable parse_rank_table(std::span<const std::byte> file, const std::string& where);

}  // namespace mha2mla::checkpoint
