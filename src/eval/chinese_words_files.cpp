#include "eval/chinese_words_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"

namespace mha2mla::eval {
namespace {
namespace fs = std::filesystem;

constexpr const char* remedy =
    "pip install --target DIR jieba==0.42.1, then pass --jieba DIR/jieba: its dictionary is no part of this program";
constexpr std::size_t most_bytes = std::size_t{1} << 27;
constexpr std::size_t most_word_bytes = 256;  // each prefix of a word is an entry
constexpr std::int64_t most_occurrences = std::int64_t{1} << 40;

std::string read(const fs::path& path) {
    if (!fs::is_regular_file(path)) {
        throw core::Error({.what = "cutting Chinese text needs a file of the package jieba",
                           .where = path.string(),
                           .remedy = remedy});
    }
    return core::read_text(path, most_bytes);
}

/// A dictionary of a Python file, read as text: names or characters in quotes, numbers, dictionaries of them.
class PythonTable {
public:
    PythonTable(std::string text, std::string where) : text_(std::move(text)), where_(std::move(where)) {
        const std::size_t begin = text_.find("P={");
        if (begin == std::string::npos) fail("P={");
        at_ = begin + 2;
    }

    /// Calls visit(key) at each value of a dictionary; it has to read the value.
    template <typename Visit>
    void for_each(const Visit& visit) {
        expect('{');
        while (!accept('}')) {
            const char32_t key = character();
            expect(':');
            visit(key);
            if (accept(',')) continue;
            expect('}');
            return;
        }
    }

    double number() {
        skip_space();
        double value = 0;
        const char* const end = text_.data() + text_.size();
        const auto read = std::from_chars(text_.data() + at_, end, value);
        if (read.ec != std::errc() || !std::isfinite(value)) fail("a number");
        at_ = static_cast<std::size_t>(read.ptr - text_.data());
        return value;
    }

    [[noreturn]] void fail(const std::string& expected) const {
        throw core::Error({.what = fmt::format("the table is damaged at byte {}", at_),
                           .expected = expected,
                           .where = where_,
                           .remedy = remedy});
    }

private:
    char front() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    void skip_space() {
        while (front() == ' ' || front() == '\n' || front() == '\r' || front() == '\t') ++at_;
    }
    bool accept(char wanted) {
        skip_space();
        if (front() != wanted) return false;
        ++at_;
        return true;
    }
    void expect(char wanted) {
        if (!accept(wanted)) fail(std::string("'") + wanted + "'");
    }

    /// One in quotes: itself or \uXXXX.
    char32_t character() {
        expect('\'');
        char32_t code = 0;
        if (front() == '\\') {
            code = escaped();
        } else {
            if (at_ >= text_.size()) fail("a character");
            const auto step = core::read_utf8(std::string_view(text_).substr(at_));
            code = step.value;
            at_ += step.bytes;
        }
        if (front() != '\'') fail("one character in quotes");
        ++at_;
        return code;
    }

    char32_t escaped() {
        constexpr std::size_t digits = 4;
        const auto rest = std::string_view(text_).substr(at_);
        unsigned code = 0;
        const bool is_whole = rest.size() >= digits + 2 && rest[1] == 'u';
        const auto* const begin = rest.data() + 2;
        if (!is_whole || std::from_chars(begin, begin + digits, code, 16).ptr != begin + digits) fail("\\uXXXX");
        at_ += digits + 2;
        return code;
    }

    std::string text_;
    std::string where_;
    std::size_t at_ = 0;
};

std::size_t state_of(char32_t name, const PythonTable& table) {
    const std::size_t state = std::u32string_view(U"BMES").find(name);
    if (state == std::u32string_view::npos) table.fail("a state: 'B', 'M', 'E' or 'S'");
    return state;
}

struct CountedWord {
    std::string_view word;
    std::int64_t occurrences;
};

std::optional<CountedWord> parse_line(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos || space > most_word_bytes) return std::nullopt;
    const auto rest = line.substr(space + 1);
    const auto number = rest.substr(0, rest.find_first_of(" \r"));
    CountedWord word{line.substr(0, space), 0};
    const auto read = std::from_chars(number.data(), number.data() + number.size(), word.occurrences);
    const bool is_whole = read.ec == std::errc() && read.ptr == number.data() + number.size();
    const bool is_sane = word.occurrences >= 0 && word.occurrences <= most_occurrences;
    return is_whole && is_sane && core::valid_utf8_prefix(word.word) == space ? std::optional(word) : std::nullopt;
}

/// Each beginning of the word is found, too, so that a search knows when to stop.
void add_beginnings(std::string_view word, std::unordered_map<std::string, std::int64_t>& occurrences) {
    for (std::size_t length = 0; length < word.size();) {
        length += core::read_utf8(word.substr(length)).bytes;
        occurrences.try_emplace(std::string(word.substr(0, length)), 0);
    }
}

}  // namespace

WordCounts parse_word_counts(std::string_view text, const std::string& where) {
    WordCounts counts;
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const auto word = parse_line(text.substr(begin, end - begin));
        begin = end + 1;
        ++number;
        if (!word || counts.total > std::numeric_limits<std::int64_t>::max() - most_occurrences) {
            throw core::Error({.what = "not a line of jieba's dictionary",
                               .expected = "a word, a blank, its occurrences",
                               .where = fmt::format("{}, line {}", where, number),
                               .remedy = remedy});
        }
        counts.occurrences[std::string(word->word)] = word->occurrences;
        counts.total += word->occurrences;
        add_beginnings(word->word, counts.occurrences);
    }
    if (counts.total > 0) return counts;
    throw core::Error({.what = "the dictionary is empty", .where = where, .remedy = remedy});
}

WordShapes parse_word_shapes(const ShapeTables& tables, const fs::path& folder) {
    WordShapes shapes;
    shapes.first.fill(WordShapes::impossible);
    for (auto& row : shapes.next) row.fill(WordShapes::impossible);
    PythonTable first(tables.start, (folder / "prob_start.py").string());
    first.for_each([&](char32_t state) { shapes.first[state_of(state, first)] = first.number(); });
    PythonTable next(tables.trans, (folder / "prob_trans.py").string());
    next.for_each([&](char32_t from) {
        auto& row = shapes.next[state_of(from, next)];
        next.for_each([&](char32_t to) { row[state_of(to, next)] = next.number(); });
    });
    PythonTable characters(tables.emit, (folder / "prob_emit.py").string());
    characters.for_each([&](char32_t state) {
        auto& known = shapes.characters[state_of(state, characters)];
        characters.for_each([&](char32_t character) { known[character] = characters.number(); });
    });
    return shapes;
}

WordCounts read_word_counts(const fs::path& path) { return parse_word_counts(read(path), path.string()); }

WordShapes read_word_shapes(const fs::path& folder) {
    return parse_word_shapes({.start = read(folder / "prob_start.py"),
                              .trans = read(folder / "prob_trans.py"),
                              .emit = read(folder / "prob_emit.py")},
                             folder);
}

}  // namespace mha2mla::eval
