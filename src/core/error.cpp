#include "core/error.h"

#include <fmt/format.h>

namespace mha2mla::core {
namespace {

/// Names from hostile files may hold line ends and terminal escapes; an error is one line.
std::string printable(const std::string& text) {
    std::string line;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f) {
            line += fmt::format("\\x{:02x}", byte);
        } else {
            line += c;
        }
    }
    return line;
}

std::string sentence(const ErrorInfo& info) {
    std::string text = info.where.empty() ? info.what : fmt::format("{}: {}", info.where, info.what);
    if (!info.expected.empty()) text += fmt::format(", expected {}", info.expected);
    if (!info.got.empty()) text += fmt::format(", got {}", info.got);
    if (!info.remedy.empty()) text += fmt::format("; {}", info.remedy);
    return printable(text);
}

}  // namespace

Error::Error(ErrorInfo info) : std::runtime_error(sentence(info)), info_(std::move(info)) {}

void invariant(bool holds, const char* promise, const char* file, int line) {
    if (holds) return;
    throw std::logic_error(fmt::format("broken promise at {}:{}: {}", file, line, promise));
}

}  // namespace mha2mla::core
