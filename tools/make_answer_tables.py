"""Writes src/eval/answer_metrics_tables.cpp: what Python's str calls a word character, a decimal digit and lower case.

The published metrics of LongBench are Python; its re and str methods decide what a word, a number and a lower-case
letter is. Needs nothing beyond Python. Format the output with tools/check_format.py --fix.
"""

import unicodedata
from pathlib import Path

OUT = Path(__file__).parent.parent / "src/eval/answer_metrics_tables.cpp"
LAST = 0x10FFFF
TWO_LETTERS = 0x130  # its lower case is i and a dot above: the code handles it


def ranges(holds):
    found, first = [], None
    for code in range(LAST + 2):
        inside = code <= LAST and holds(chr(code))
        if inside and first is None:
            first = code
        if not inside and first is not None:
            found.append((first, code - 1))
            first = None
    return found


def lower_ranges():
    """(first, last, step, what to add), the step being 1 or 2."""
    found = []
    for code in range(LAST + 1):
        lower = chr(code).lower()
        if code == TWO_LETTERS or lower == chr(code):
            continue
        delta = ord(lower) - code
        if found:
            first, last, step, same = found[-1]
            gap = code - last
            if same == delta and (gap == step or first == last and gap == 2):
                found[-1] = (first, code, gap, delta)
                continue
        found.append((code, code, 1, delta))
    return found


def table(kind, name, rows):
    items = ", ".join("{" + ", ".join(row) + "}" for row in rows)
    return f"constexpr {kind} {name}[] = {{{items}}};\n"


def hexadecimal(rows):
    return [[f"{value:#x}" for value in row] for row in rows]


def main():
    lower = [[f"{first:#x}", f"{last:#x}", str(step), str(delta)] for first, last, step, delta in lower_ranges()]
    OUT.write_text(
        f"// Made by tools/make_answer_tables.py from Unicode {unicodedata.unidata_version}.\n\n"
        '#include "eval/answer_metrics_tables.h"\n\n'
        "namespace mha2mla::eval {\nnamespace {\n\n"
        + table("CodeRange", "words", hexadecimal(ranges(str.isalnum)))
        + "\n" + table("CodeRange", "decimals", hexadecimal(ranges(str.isdecimal)))
        + "\n" + table("LowerRange", "lowers", lower)
        + "\n}  // namespace\n\n"
        "std::span<const CodeRange> word_ranges() { return words; }\n"
        "std::span<const CodeRange> decimal_ranges() { return decimals; }\n"
        "std::span<const LowerRange> lower_ranges() { return lowers; }\n\n"
        "}  // namespace mha2mla::eval\n", encoding="utf-8")


if __name__ == "__main__":
    main()
