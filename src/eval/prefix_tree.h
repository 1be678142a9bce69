#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mha2mla::eval {

/// Some texts of which only the ends are to be scored.
struct ScoredText {
    std::vector<int> tokens;  ///< all but the last one are read, all from `scored` on are scored
    std::size_t scored = 1;   ///< index of the first one to be scored; at least 1
};

/// A run of tokens that some texts share, behind the runs of its parents.
struct PrefixNode {
    int parent = -1;                      ///< index of an earlier node
    std::size_t depth = 0;                ///< tokens before it
    std::vector<int> tokens = {};         ///< at least one
    std::size_t logits = 0;               ///< of so many of its last tokens are wanted
    std::vector<std::size_t> texts = {};  ///< that go through it
};

/// How many tokens both begin with.
std::size_t shared_tokens(std::span<const int> a, std::span<const int> b);

/// The tree of what the texts read, so that what several begin with is computed once. Parents stand before children. A
/// branch is made where `least` tokens are shared, or all of what is left of a text: for less, a batch of its own costs
/// more than it saves.
std::vector<PrefixNode> prefix_tree(std::span<const ScoredText> texts, std::size_t least);

}  // namespace mha2mla::eval
