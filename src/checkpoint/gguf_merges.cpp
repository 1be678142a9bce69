#include "checkpoint/gguf_merges.h"

#include <algorithm>
#include <fmt/format.h>
#include <unordered_map>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

// sentencepiece's own default is 16 code points; the time to find all cuts grows with the square.
constexpr std::size_t longest_piece_bytes = 256;

struct Merge {
    double score = 0;
    std::size_t left = 0;
    std::size_t right = 0;
};

/// Control, unknown and byte tokens stand for themselves: text never becomes one by merging.
bool takes_part(TokenType type) { return type == TokenType::normal || type == TokenType::user_defined; }

class PieceTable {
public:
    explicit PieceTable(const GgufVocabulary& vocabulary) {
        for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
            if (takes_part(vocabulary.types[id])) ids_.emplace(vocabulary.tokens[id], id);
        }
    }

    void append_merges(std::string_view piece, double score, std::vector<Merge>& merges) const {
        for (std::size_t cut = piece.size() - 1; cut >= 1; --cut) {
            const auto left = ids_.find(piece.substr(0, cut));
            if (left == ids_.end()) continue;
            const auto right = ids_.find(piece.substr(cut));
            if (right != ids_.end()) merges.push_back({score, left->second, right->second});
        }
    }

private:
    std::unordered_map<std::string_view, std::size_t> ids_;
};

}  // namespace

core::OrderedJson rebuild_merges(const GgufVocabulary& vocabulary, const std::string& where) {
    const PieceTable pieces(vocabulary);
    std::vector<Merge> merges;
    for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
        const auto piece = vocabulary.tokens[id];
        if (!takes_part(vocabulary.types[id]) || piece.empty()) continue;
        if (piece.size() > longest_piece_bytes) {
            throw core::Error({.what = fmt::format("token {} is too long for a sentencepiece", quoted(piece)),
                               .expected = fmt::format("at most {} bytes", longest_piece_bytes),
                               .got = fmt::format("{}", piece.size()),
                               .where = where});
        }
        pieces.append_merges(piece, vocabulary.scores[id], merges);
    }
    std::stable_sort(merges.begin(), merges.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
    auto json = core::OrderedJson::array();
    for (const auto& merge : merges) json.push_back({vocabulary.tokens[merge.left], vocabulary.tokens[merge.right]});
    return json;
}

}  // namespace mha2mla::checkpoint
