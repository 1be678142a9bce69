#include "eval/chinese_words.h"

#include <algorithm>
#include <cmath>

#include "eval/answer_metrics_text.h"
#include "eval/chinese_words_files.h"

namespace mha2mla::eval {
namespace {

bool is_ascii_letter_or_digit(char32_t code) {
    return (code >= U'a' && code <= U'z') || (code >= U'A' && code <= U'Z') || (code >= U'0' && code <= U'9');
}

bool is_chinese(char32_t code) { return code >= 0x4e00 && code <= 0x9fd5; }

/// What the dictionary is asked about; all else is cut into characters.
bool is_word_character(char32_t code) {
    return is_chinese(code) || is_ascii_letter_or_digit(code) ||
           std::u32string_view(U"+#&._%-").find(code) != std::u32string_view::npos;
}

/// Length of the run at the front of the text whose characters all give the answer of its first one.
template <typename Predicate>
std::size_t run_length(std::u32string_view text, const Predicate& holds) {
    const bool first = holds(text.front());
    std::size_t length = 1;
    while (length < text.size() && holds(text[length]) == first) ++length;
    return length;
}

std::size_t digits_at(std::u32string_view text, std::size_t at) {
    std::size_t count = 0;
    while (at + count < text.size() && text[at + count] >= U'0' && text[at + count] <= U'9') ++count;
    return count;
}

/// Length of what stays together at the front of text without Chinese: letters and digits, a fraction, a percent sign;
/// 0 where there is none.
std::size_t western_word(std::u32string_view text) {
    std::size_t length = 0;
    while (length < text.size() && is_ascii_letter_or_digit(text[length])) ++length;
    if (length == 0) return 0;
    if (length < text.size() && text[length] == U'.') {
        const std::size_t digits = digits_at(text, length + 1);
        if (digits > 0) length += 1 + digits;
    }
    return length < text.size() && text[length] == U'%' ? length + 1 : length;
}

void cut_western(std::u32string_view text, std::vector<std::string>& pieces) {
    std::size_t between = 0;  // characters at the front that are no word's
    while (between < text.size()) {
        const std::size_t length = western_word(text.substr(between));
        if (length == 0) {
            ++between;
            continue;
        }
        if (between > 0) pieces.push_back(to_utf8(text.substr(0, between)));
        pieces.push_back(to_utf8(text.substr(between, length)));
        text.remove_prefix(between + length);
        between = 0;
    }
    if (!text.empty()) pieces.push_back(to_utf8(text));
}

void cut_characters(std::u32string_view text, std::vector<std::string>& pieces) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::size_t length = text.substr(i, 2) == U"\r\n" ? 2 : 1;
        pieces.push_back(to_utf8(text.substr(i, length)));
        i += length - 1;
    }
}

}  // namespace

ChineseWords::ChineseWords(const std::filesystem::path& folder) {
    auto counts = read_word_counts(folder / "dict.txt");
    shapes_ = read_word_shapes(folder / "finalseg");
    occurrences_ = std::move(counts.occurrences);
    log_total_ = std::log(static_cast<double>(counts.total));
}

std::vector<std::string> ChineseWords::cut(std::string_view text) const {
    const auto codes = to_code_points(text);
    std::vector<std::string> pieces;
    for (std::u32string_view rest = codes; !rest.empty();) {
        const auto block = rest.substr(0, run_length(rest, is_word_character));
        if (is_word_character(block.front())) {
            cut_block(block, pieces);
        } else {
            cut_characters(block, pieces);
        }
        rest.remove_prefix(block.size());
    }
    return pieces;
}

const std::int64_t* ChineseWords::find(std::u32string_view text) const {
    const auto found = occurrences_.find(to_utf8(text));
    return found == occurrences_.end() ? nullptr : &found->second;
}

/// For each character the last one of the word that begins there on the likeliest way to the block's end; of equally
/// likely words the longest.
std::vector<std::size_t> ChineseWords::likeliest_ends(std::u32string_view block) const {
    std::vector<double> likelihood(block.size() + 1);
    std::vector<std::size_t> last(block.size());
    for (std::size_t k = block.size(); k-- > 0;) {
        bool has_word = false;
        const auto consider = [&](std::size_t i, std::int64_t occurrences) {
            const double way = std::log(static_cast<double>(occurrences)) - log_total_ + likelihood[i + 1];
            if (has_word && way < likelihood[k]) return;
            likelihood[k] = way;
            last[k] = i;
            has_word = true;
        };
        for (std::size_t i = k; i < block.size(); ++i) {
            const auto* occurrences = find(block.substr(k, i + 1 - k));
            if (occurrences == nullptr) break;
            if (*occurrences > 0) consider(i, *occurrences);
        }
        if (!has_word) consider(k, 1);
    }
    return last;
}

void ChineseWords::cut_block(std::u32string_view block, std::vector<std::string>& pieces) const {
    const auto last = likeliest_ends(block);
    std::size_t unknown = 0;  // where the single characters before `at` begin
    for (std::size_t at = 0; at < block.size(); at = last[at] + 1) {
        if (last[at] == at) continue;
        cut_unknown(block.substr(unknown, at - unknown), pieces);
        pieces.push_back(to_utf8(block.substr(at, last[at] + 1 - at)));
        unknown = last[at] + 1;
    }
    cut_unknown(block.substr(unknown), pieces);
}

void ChineseWords::cut_unknown(std::u32string_view run, std::vector<std::string>& pieces) const {
    const auto* occurrences = run.size() > 1 ? find(run) : nullptr;
    if (run.size() <= 1 || (occurrences != nullptr && *occurrences > 0)) return cut_characters(run, pieces);
    while (!run.empty()) {
        const auto part = run.substr(0, run_length(run, is_chinese));
        if (is_chinese(part.front())) {
            for (const auto& word : shapes_.cut(part)) pieces.push_back(to_utf8(word));
        } else {
            cut_western(part, pieces);
        }
        run.remove_prefix(part.size());
    }
}

}  // namespace mha2mla::eval
