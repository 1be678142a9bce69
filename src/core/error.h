#pragma once

#include <stdexcept>
#include <string>

namespace mha2mla::core {

/// What a user needs to know to mend a failure. Empty fields are left out of the message.
struct ErrorInfo {
    std::string what = {};      ///< one clause, lower case: "tensor 'x' has the wrong shape"
    std::string expected = {};  ///< "[576, 192]"
    std::string got = {};       ///< "[192, 576]"
    std::string where = {};     ///< file, option or request field
    std::string remedy = {};    ///< what to do now: "pass --force to replace it"
};

/// A failure that the user or the outside world caused. `main` prints `what()` as one line.
class Error : public std::runtime_error {
public:
    explicit Error(ErrorInfo info);
    const ErrorInfo& info() const noexcept { return info_; }

private:
    ErrorInfo info_;
};

/// Raised at a stop request (Ctrl-C). Not a failure: nothing was lost.
class Cancelled : public std::runtime_error {
public:
    Cancelled() : std::runtime_error("stopped") {}
};

/// Holds what our own code promises. Throws std::logic_error naming the caller's line: a bug of ours, never a user's.
/// (The builtins are std::source_location's, which Clang 14 lacks.)
void invariant(bool holds, const char* promise, const char* file = __builtin_FILE(), int line = __builtin_LINE());

}  // namespace mha2mla::core
