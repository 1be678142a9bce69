#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace mha2mla::runtime {

/// Who holds the pages of a text that begins as another one. A whole page is found by the hash of all tokens up to its
/// end; the tokens themselves are compared before it is used.
class PrefixIndex {
public:
    using Holder = std::int64_t;

    struct Match {
        Holder holder = 0;
        std::int64_t tokens = 0;  ///< whole pages, from the start
    };

    /// The holder has the pages of all whole pages of `tokens`. Adding a longer text of the same holder extends it.
    void add(Holder holder, std::span<const int> tokens);
    void remove(Holder holder);
    /// The longest known beginning of `tokens` that leaves at least one of them; its holder counts as used now.
    std::optional<Match> find(std::span<const int> tokens);

    /// From now on the holder may be given up.
    void retire(Holder holder);
    /// The retired holder that was not used for the longest time.
    std::optional<Holder> least_recent() const;

private:
    struct Entry {
        std::vector<int> tokens;            // whole pages
        std::vector<std::uint64_t> hashes;  // of each page
        bool retired = false;
        std::int64_t used = 0;
    };

    std::unordered_map<std::uint64_t, Holder> pages_;
    std::unordered_map<Holder, Entry> entries_;
    std::int64_t clock_ = 0;
};

}  // namespace mha2mla::runtime
