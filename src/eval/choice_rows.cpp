#include "eval/choice_rows.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

constexpr std::string_view white_space = " \t\n\v\f\r";

std::string strip(std::string_view text) {
    const std::size_t first = text.find_first_not_of(white_space);
    if (first == std::string_view::npos) return {};
    return std::string(text.substr(first, text.find_last_not_of(white_space) + 1 - first));
}

/// One context, the answers behind it.
ChoiceQuestion question(const std::string& context, const std::vector<std::string>& answers, std::size_t right) {
    ChoiceQuestion question{.answer = right};
    for (const auto& answer : answers) {
        question.choices.push_back(
            {.context = context, .continuation = " " + answer, .characters = count_characters(answer)});
    }
    return question;
}

/// One letter for each of `answers` in "\nA. first\nB. second".
std::string lettered(const std::vector<std::string>& answers) {
    std::string text;
    for (std::size_t i = 0; i < answers.size(); ++i) text += fmt::format("\n{}. {}", char('A' + i), answers[i]);
    return text;
}

std::vector<std::string> letters(std::size_t count) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.emplace_back(1, char('A' + i));
    return names;
}

/// The answers of a row, in the number that its benchmark has.
void check_count(const core::JsonObject& row, const char* key, std::size_t count, std::size_t least, std::size_t most) {
    if (count >= least && count <= most) return;
    row.fail(key, least == most ? fmt::format("{} answers", least) : fmt::format("{} to {} answers", least, most));
}

/// An index that is written as a number or as its digits; the first is `first`.
std::size_t index_field(const core::JsonObject& row, const char* key, std::size_t first, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        const auto& value = row.raw(key);
        if (value == first + i || value == std::to_string(first + i)) return i;
    }
    row.fail(key, fmt::format("{} to {}", first, first + count - 1));
}

/// {"text": [...], "label": [...]} and the label of the right one in "answerKey".
struct LabelledChoices {
    explicit LabelledChoices(const core::JsonObject& row) {
        const auto choices = row.object("choices");
        texts = choices.strings("text");
        const auto labels = choices.strings("label");
        if (labels.size() != texts.size()) choices.fail("label", fmt::format("{} labels", texts.size()));
        check_count(row, "choices", texts.size(), 2, 26);
        const auto found = std::find(labels.begin(), labels.end(), strip(row.string("answerKey")));
        if (found == labels.end())
            row.fail("answerKey", "one of the labels " + fmt::format("{}", fmt::join(labels, ", ")));
        right = static_cast<std::size_t>(found - labels.begin());
    }

    std::vector<std::string> texts;
    std::size_t right = 0;
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
        text.replace(at, from.size(), to);
    }
}

/// Brackets are left over from the WikiHow part of the benchmark. Those that span lines stay.
void remove_bracketed(std::string& text) {
    for (std::size_t begin = 0; (begin = text.find('[', begin)) != std::string::npos;) {
        const std::size_t end = text.find_first_of("]\n", begin);
        if (end == std::string::npos || text[end] == '\n') {
            ++begin;
        } else {
            text.erase(begin, end + 1 - begin);
        }
    }
}

std::string cleaned_hellaswag(std::string_view raw) {
    std::string text = strip(raw);
    replace_all(text, " [title]", ". ");
    remove_bracketed(text);
    replace_all(text, "  ", " ");
    return text;
}

/// The first letter large, the others small, as Python's str.capitalize; letters beyond ASCII stay as they are.
std::string capitalized(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
    return text;
}

}  // namespace

std::size_t count_characters(std::string_view text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

ChoiceQuestion read_arc(const core::JsonObject& row) {
    if (row.has("question_concept")) row.fail("question_concept", "no such field: CommonsenseQA has it");
    const LabelledChoices choices(row);
    return question("Question: " + row.string("question") + "\nAnswer:", choices.texts, choices.right);
}

ChoiceQuestion read_piqa(const core::JsonObject& row) {
    const std::string context = "Question: " + row.string("goal") + "\nAnswer:";
    return question(context, {row.string("sol1"), row.string("sol2")}, index_field(row, "label", 0, 2));
}

ChoiceQuestion read_hellaswag(const core::JsonObject& row) {
    if (row.has("query")) {
        const auto choices = row.strings("choices");
        check_count(row, "choices", choices.size(), 2, 26);
        return question(row.string("query"), choices, index_field(row, "gold", 0, choices.size()));
    }
    const std::string context =
        row.string("activity_label") + ": " + row.string("ctx_a") + " " + capitalized(row.string("ctx_b"));
    auto endings = row.strings("endings");
    check_count(row, "endings", endings.size(), 2, 26);
    for (auto& ending : endings) ending = cleaned_hellaswag(ending);
    return question(cleaned_hellaswag(context), endings, index_field(row, "label", 0, endings.size()));
}

ChoiceQuestion read_openbookqa(const core::JsonObject& row) {
    const LabelledChoices choices(row);
    return question(row.string("question_stem"), choices.texts, choices.right);
}

ChoiceQuestion read_commonsenseqa(const core::JsonObject& row) {
    row.string("question_concept");  // ARC's rows lack it, and have the others
    const LabelledChoices choices(row);
    check_count(row, "choices", choices.texts.size(), 5, 5);
    return question("Question: " + strip(row.string("question")) + lettered(choices.texts) + "\nAnswer:", letters(5),
                    choices.right);
}

ChoiceQuestion read_winogrande(const core::JsonObject& row) {
    const std::string sentence = row.string("sentence");
    const std::size_t blank = sentence.find('_');
    if (blank == std::string::npos) row.fail("sentence", "a sentence with the blank '_'");
    const std::string rest = strip(std::string_view(sentence).substr(blank + 1));
    ChoiceQuestion question{.answer = index_field(row, "answer", 1, 2)};
    for (const char* option : {"option1", "option2"}) {
        question.choices.push_back({.context = sentence.substr(0, blank) + row.string(option),
                                    .continuation = " " + rest,
                                    .characters = count_characters(rest)});
    }
    return question;
}

ChoiceQuestion read_mmlu(const core::JsonObject& row) {
    const auto choices = row.strings("choices");
    check_count(row, "choices", choices.size(), 4, 4);
    auto result = question(strip(row.string("question")) + lettered(choices) + "\nAnswer:", letters(4),
                           index_field(row, "answer", 0, 4));
    result.subject = row.string("subject");
    return result;
}

}  // namespace mha2mla::eval
