#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <array>
#include <fmt/format.h>
#include <pcre2.h>

#include "core/error.h"
#include "core/utf8.h"

namespace mha2mla::tokenizer {
namespace {

constexpr std::size_t max_pattern_bytes = 10'000;
constexpr std::uint32_t max_backtracks = 5'000'000;
constexpr std::uint32_t max_heap_kib = 256 * 1024;
// Ruby's rules, which tokenizer files are written for: ^ and $ stand at line ends.
constexpr std::uint32_t compile_options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;

struct Free {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
    void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

std::string message(int code) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(code, text.data(), text.size());
    return reinterpret_cast<const char*>(text.data());
}

/// \s as tokenizers know it, the Unicode property White_Space; PCRE2's own holds U+180E as well.
std::string with_unicode_spaces(const std::string& pattern) {
    std::string result;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        const bool escape = pattern[i] == '\\' && i + 1 < pattern.size();
        const std::string_view pair = std::string_view(pattern).substr(i, escape ? 2 : 1);
        result += pair == "\\s" ? "\\p{White_Space}" : pair == "\\S" ? "\\P{White_Space}" : pair;
        i += pair.size() - 1;
    }
    return result;
}

pcre2_code* compile(const std::string& pattern, const std::string& where) {
    const std::unique_ptr<pcre2_compile_context, Free> context(pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_max_pattern_length(context.get(), max_pattern_bytes);
    const std::string text = with_unicode_spaces(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), compile_options, &error,
                                     &offset, context.get());
    if (code != nullptr) return code;
    throw core::Error({.what = fmt::format("the splitting pattern is not usable ({})", message(error)),
                       .got = pattern.substr(0, 200),
                       .where = where});
}

using MatchContext = std::unique_ptr<pcre2_match_context, Free>;

/// Bounds on what one search may cost, so that a hostile pattern cannot hang the program.
MatchContext limited_context() {
    MatchContext context(pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(context.get(), max_backtracks);
    pcre2_set_heap_limit(context.get(), max_heap_kib);
    return context;
}

}  // namespace

/// What one caller needs while it searches.
struct Regex::Workspace {
    std::unique_ptr<pcre2_match_data, Free> match{pcre2_match_data_create(1, nullptr)};
    MatchContext context = limited_context();
};

Regex::Regex(const std::string& pattern, std::string where)
    : code_(compile(pattern, where), [](const pcre2_code* code) { pcre2_code_free(const_cast<pcre2_code*>(code)); }),
      where_(std::move(where)) {
    // Where the machine has no JIT the interpreter serves: the result is the same.
    pcre2_jit_compile(const_cast<pcre2_code*>(code_.get()), PCRE2_JIT_COMPLETE);
}

bool Regex::search(std::string_view text, std::size_t from, Workspace& workspace) const {
    const auto match = [&](std::uint32_t options) {
        return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                           options | PCRE2_NO_UTF_CHECK, workspace.match.get(), workspace.context.get());
    };
    int result = match(0);
    // Compiled code has a small stack; the interpreter takes what it needs from the heap.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) {
        throw core::Error(
            {.what = fmt::format("the splitting pattern failed on the text ({})", message(result)), .where = where_});
    }
    return true;
}

bool Regex::matches(std::string_view text) const {
    Workspace workspace;
    return search(text, 0, workspace);
}

void Regex::for_each_piece(std::string_view text, core::FunctionRef<void(std::string_view)> emit) const {
    Workspace workspace;
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(workspace.match.get());
    std::size_t done = 0;
    std::size_t from = 0;
    while (from < text.size() && search(text, from, workspace)) {
        if (bounds[0] > done) emit(text.substr(done, bounds[0] - done));
        if (bounds[1] > bounds[0]) emit(text.substr(bounds[0], bounds[1] - bounds[0]));
        done = bounds[1];
        from = done;
        // An empty match cuts the text, too, and the search must go on behind the next character.
        if (bounds[1] == bounds[0] && from < text.size()) from += core::read_utf8(text.substr(from)).bytes;
    }
    if (done < text.size()) emit(text.substr(done));
}

}  // namespace mha2mla::tokenizer
