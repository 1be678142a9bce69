#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/function_ref.h"

struct pcre2_real_code_8;

namespace mha2mla::tokenizer {

/// A compiled Unicode pattern. Immutable; threads may share one.
class Regex {
public:
    /// Throws Error where the pattern is not valid. `where` names the file it came from.
    Regex(const std::string& pattern, std::string where);

    /// Cuts valid UTF-8 text into its matches and what lies between them, in order and without empty pieces.
    /// Look-around sees nothing outside the text. Throws Error where matching takes unreasonably long.
    void for_each_piece(std::string_view text, core::FunctionRef<void(std::string_view)> emit) const;

    /// Whether the pattern matches anywhere in the (valid UTF-8) text.
    bool matches(std::string_view text) const;

private:
    struct Workspace;
    bool search(std::string_view text, std::size_t from, Workspace& workspace) const;

    std::shared_ptr<const pcre2_real_code_8> code_;
    std::string where_;
};

}  // namespace mha2mla::tokenizer
