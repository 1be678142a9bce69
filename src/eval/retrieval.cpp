#include "eval/retrieval.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/error.h"
#include "core/random.h"
#include "eval/usable_rows.h"

namespace mha2mla::eval {
namespace {

constexpr std::string_view instruction = "Somewhere in the following text a secret number is told. Remember it.\n\n";
constexpr std::string_view question_text = "\n\nQuestion: What is the secret number of the lighthouse keeper?";
constexpr std::string_view answer_begin = "\nAnswer: The secret number of the lighthouse keeper is";

std::string needle(const std::string& secret) {
    return fmt::format(" The secret number of the lighthouse keeper is {}.", secret);
}

/// Behind the last sentence that ends at or before `most` bytes; where none does, behind a word, or a character.
std::size_t sentence_end(std::string_view text, std::size_t most) {
    if (most >= text.size()) return text.size();
    const std::string_view before = text.substr(0, most);
    std::size_t end = before.find_last_of(".!?\n") + 1;  // npos + 1 is 0
    for (const std::string_view stop : {"\u3002", "\uff01", "\uff1f"}) {
        const std::size_t at = before.rfind(stop);
        if (at != std::string_view::npos) end = std::max(end, at + stop.size());
    }
    if (end == 0) end = before.find_last_of(' ') + 1;
    if (end > 0) return end;
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0) == 0x80) --most;
    return most;
}

std::string secret_number(const NeedleCell& cell, int number, std::uint64_t seed) {
    constexpr std::uint64_t first = 10'000, count = 90'000;
    const auto mixed = (static_cast<std::uint64_t>(cell.length) * 101 + static_cast<std::uint64_t>(cell.depth)) * 1009;
    core::Random random(seed + mixed + static_cast<std::uint64_t>(number));
    return fmt::to_string(first + random.below(count));
}

}  // namespace

RetrievalData read_key_values(const std::filesystem::path& path, int limit) {
    RetrievalData data;
    const auto take = [&](const core::JsonObject& row, int line) {
        RetrievalRow added{fmt::format("kv/{}", line), row.string("context"), row.string("answer")};
        if (added.prompt.empty()) row.fail("context", "a text");
        if (added.answer.empty()) row.fail("answer", "a text");
        data.rows.push_back(std::move(added));
    };
    data.left_out = for_each_usable_row(path, limit, take, [](const core::JsonObject&) {});
    return data;
}

RetrievalScore score_retrieval(std::string_view output, std::string_view answer) {
    const std::size_t begin = std::min(output.find_first_not_of(" \t\n\r\"'"), output.size());
    return {.is_found = output.find(answer) != std::string_view::npos,
            .is_exact = output.substr(begin).starts_with(answer)};
}

Haystack::Haystack(const tokenizer::Tokenizer& words, std::string_view text, const data::ChatTemplate& chat)
    : words_(words), chat_(chat), text_(words.encode(text, false, false)) {
    const bool is_blank = text.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
    if (is_blank || text_.empty()) throw core::Error({.what = "the haystack is empty", .where = "--text"});
}

std::string Haystack::hay(std::size_t first, std::size_t tokens) const {
    std::vector<int> ids(tokens);
    for (std::size_t i = 0; i < tokens; ++i) ids[i] = text_[(first + i) % text_.size()];
    return words_.decode(ids);
}

std::string Haystack::prompt(std::string_view hay, const NeedleCell& cell, const std::string& secret) const {
    const std::size_t at = sentence_end(hay, hay.size() * static_cast<std::size_t>(cell.depth) / 100);
    std::string text(instruction);
    text.append(hay.substr(0, at)).append(needle(secret)).append(hay.substr(at)).append(question_text);
    if (chat_.name == "none") return text.append(answer_begin);
    return chat_.wrap(text.append(" Answer with the number."));
}

RetrievalRow Haystack::question(const NeedleCell& cell, int number, std::uint64_t seed) const {
    const auto secret = secret_number(cell, number, seed);
    const auto tokens_of = [&](const std::string& text) { return std::ssize(words_.encode(text, true)); };
    std::int64_t room = cell.length - tokens_of(prompt("", cell, secret));
    const auto first = static_cast<std::size_t>(number) * static_cast<std::size_t>(cell.length);
    std::string text;
    // Decoded text may need some tokens more where it is cut.
    for (std::int64_t over = 0; room > 0; room -= over) {
        text = prompt(hay(first, static_cast<std::size_t>(room)), cell, secret);
        over = tokens_of(text) - cell.length;
        if (over <= 0) break;
    }
    if (room > 0) return {fmt::format("needle/{}/{}/{}", cell.length, cell.depth, number), text, secret};
    throw core::Error({.what = "a length has no room for a haystack",
                       .expected = fmt::format("more than {} tokens", tokens_of(prompt("", cell, secret))),
                       .got = fmt::to_string(cell.length),
                       .where = "--lengths"});
}

}  // namespace mha2mla::eval
