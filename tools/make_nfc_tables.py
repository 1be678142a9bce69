"""Writes src/tokenizer/nfc_decompositions.cpp and nfc_mark_ranges.cpp: the data of Unicode's canonical composition."""

import sys
import unicodedata
from pathlib import Path

HANGUL = range(0xAC00, 0xD7A4)
TARGET = Path(__file__).resolve().parent.parent / "src/tokenizer"


def decompositions():
    """(composed, first, second or 0, whether NFC joins them again) of every canonical decomposition."""
    rows = []
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if not parts or parts[0].startswith("<") or code in HANGUL:
            continue
        first, second = [int(part, 16) for part in parts] + [0] * (2 - len(parts))
        rows.append((code, first, second, int(unicodedata.normalize("NFC", chr(code)) == chr(code))))
    return rows


def mark_ranges():
    ranges = []
    for code in range(sys.maxunicode + 1):
        combining_class = unicodedata.combining(chr(code))
        if not combining_class:
            continue
        if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == combining_class:
            ranges[-1][1] = code
        else:
            ranges.append([code, code, combining_class])
    return ranges


def table(rows):
    """As many rows to a line as 120 columns hold."""
    lines, line = [], "   "
    for row in rows:
        item = " {" + ",".join(map(str, row)) + "},"
        if len(line) + len(item) > 120:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join(lines + [line])


def write(name, row_type, rows):
    origin = f"tools/make_nfc_tables.py from Unicode {unicodedata.unidata_version}"
    (TARGET / f"nfc_{name}.cpp").write_text(f"""// Made by {origin}; do not edit.
#include <array>

#include "tokenizer/nfc.h"

namespace mha2mla::tokenizer::nfc {{
namespace {{

// clang-format off
constexpr std::array<{row_type}, {len(rows)}> rows{{{{
{table(rows)}
}}}};
// clang-format on

}}  // namespace

std::span<const {row_type}> {name}() {{ return rows; }}

}}  // namespace mha2mla::tokenizer::nfc
""")


def main():
    write("decompositions", "Decomposition", decompositions())
    write("mark_ranges", "MarkRange", mark_ranges())


if __name__ == "__main__":
    main()
