#include <utility>

#include "eval/chinese_words.h"

namespace mha2mla::eval {
namespace {

constexpr int states = WordShapes::states;
using Row = std::array<double, states>;
using Origins = std::array<int, states>;

double likelihood_of(const WordShapes& shapes, int state, char32_t character) {
    const auto& known = shapes.characters[static_cast<std::size_t>(state)];
    const auto found = known.find(character);
    return found == known.end() ? WordShapes::impossible : found->second;
}

/// The two states that a state may follow. Of equally likely ones the second is taken: jieba compares the letters of
/// their names then, B, E, M and S. The numbers are so large where something is impossible that this happens.
std::pair<int, int> before(int state) {
    switch (state) {
        case WordShapes::begin: return {WordShapes::end, WordShapes::single};
        case WordShapes::middle: return {WordShapes::begin, WordShapes::middle};
        case WordShapes::end: return {WordShapes::begin, WordShapes::middle};
        default: return {WordShapes::end, WordShapes::single};
    }
}

/// One character on: the likelihood of each state, and the state that it came from.
Row advance(const WordShapes& shapes, const Row& row, char32_t character, Origins& origins) {
    Row now{};
    for (int state = 0; state < states; ++state) {
        const auto s = static_cast<std::size_t>(state);
        const double emitted = likelihood_of(shapes, state, character);
        const auto way = [&](int from) {
            const auto f = static_cast<std::size_t>(from);
            return row[f] + shapes.next[f][s] + emitted;
        };
        const auto [first, second] = before(state);
        origins[s] = way(first) > way(second) ? first : second;
        now[s] = way(origins[s]);
    }
    return now;
}

std::vector<int> likeliest_states(const WordShapes& shapes, std::u32string_view run) {
    std::vector<Origins> origins(run.size());
    Row row{};
    for (int state = 0; state < states; ++state) {
        const auto s = static_cast<std::size_t>(state);
        row[s] = shapes.first[s] + likelihood_of(shapes, state, run[0]);
    }
    for (std::size_t i = 1; i < run.size(); ++i) row = advance(shapes, row, run[i], origins[i]);
    std::vector<int> path(run.size());
    path.back() = row[WordShapes::end] > row[WordShapes::single] ? WordShapes::end : WordShapes::single;
    for (std::size_t i = run.size(); --i > 0;) path[i - 1] = origins[i][static_cast<std::size_t>(path[i])];
    return path;
}

}  // namespace

std::vector<std::u32string> WordShapes::cut(std::u32string_view run) const {
    const auto path = likeliest_states(*this, run);
    std::vector<std::u32string> words;
    std::size_t word = 0;  // where it begins
    std::size_t rest = 0;  // behind the last one
    for (std::size_t i = 0; i < run.size(); ++i) {
        if (path[i] == begin) word = i;
        if (path[i] != end && path[i] != single) continue;
        const std::size_t from = path[i] == single ? i : word;
        words.emplace_back(run.substr(from, i + 1 - from));
        rest = i + 1;
    }
    if (rest < run.size()) words.emplace_back(run.substr(rest));
    return words;
}

}  // namespace mha2mla::eval
