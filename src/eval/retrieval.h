#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::eval {

// Whether a model finds one thing in a long prompt again: a value behind its key, or a sentence in other text.

/// A prompt and what its continuation should say.
struct RetrievalRow {
    std::string id;
    std::string prompt;
    std::string answer;
};

struct RetrievalData {
    std::vector<RetrievalRow> rows;
    std::vector<std::string> left_out;  ///< rows that cannot be asked, and why
};

/// The first `limit` lines (0: all) of a file of key-value pairs: "context", a prompt that ends behind a key, and
/// "answer", its value. Throws Error where no row can be used.
RetrievalData read_key_values(const std::filesystem::path& path, int limit);

struct RetrievalScore {
    bool is_found = false;  ///< the answer stands somewhere in the output
    bool is_exact = false;  ///< the output begins with it, white space and a quotation mark aside
};

RetrievalScore score_retrieval(std::string_view output, std::string_view answer);

/// One field of the grid of needles.
struct NeedleCell {
    int length = 0;  ///< tokens of the prompt, at most
    int depth = 0;   ///< where in the text the needle lies, in percent
};

/// Hides sentences with a secret number in a text, "needles in a haystack" (Kamradt 2023), and asks for the number.
class Haystack {
public:
    /// The text is repeated where a length needs more of it. Throws Error where it is blank.
    Haystack(const tokenizer::Tokenizer& words, std::string_view text, const data::ChatTemplate& chat);

    /// The `number`-th question of a cell, with a number that follows from the seed. The needle lies at the end of a
    /// sentence, at most at the depth. Throws Error for a length that does not even hold the question.
    RetrievalRow question(const NeedleCell& cell, int number, std::uint64_t seed) const;

private:
    std::string prompt(std::string_view hay, const NeedleCell& cell, const std::string& secret) const;
    std::string hay(std::size_t first, std::size_t tokens) const;

    const tokenizer::Tokenizer& words_;
    data::ChatTemplate chat_;
    std::vector<int> text_;
};

/// What a cell scored: 0 to 1.
struct NeedleResult {
    NeedleCell cell;
    double score = 0;
};

/// An SVG file's text: a column for each length, a row for each depth.
std::string needle_heat_map(std::span<const NeedleResult> results, std::string_view title);

}  // namespace mha2mla::eval
