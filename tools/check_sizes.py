#!/usr/bin/env python3
"""Checks the sizes that keep the project readable, and prints them as one line of statistics.

Functions: median <= 12 lines and 90th percentile <= 30 over those of 4 lines or more, none > 60 (kernel bodies may reach
120), at most 5 parameters. Files: <= 400 lines, tests <= 600. A function's lines run from its signature to its closing
brace; the lambdas inside count with it. tools/cpp_functions.py finds the functions.
"""

import statistics
import sys
from pathlib import Path

from cpp_functions import scan

ROOT = Path(__file__).resolve().parent.parent
MEDIAN_LINES = 12
P90_LINES = 30
COUNTED_FROM_LINES = 4  # shorter functions would only flatter the statistics
FUNCTION_LINES = 60
KERNEL_LINES = 120
KERNEL_FOLDER = "src/kernels/cpu/"
PARAMETERS = 5
FILE_LINES = 400
TEST_FILE_LINES = 600

# (file without suffix, function, "lines" or "parameters") -> why it may exceed the limit. One that is not needed any more
# is an error.
EXCEPTIONS = {
    ("src/convert/pipeline", "convert", "parameters"): "what, how, from which text, to where, progress, stop: six unlike types",
    ("src/runtime/generate", "generate", "parameters"): "model, state, prompt, options, output, stop: six unlike types",
}


def source_files(root):
    files = [p for folder in ("src", "tests", "tools") for p in (root / folder).rglob("*")]
    files = [p for p in files if p.suffix in (".h", ".cpp", ".py", ".txt") and "fixtures" not in p.parts]
    return sorted(files) + [p for p in (root / "dev", *sorted((root / "cmake").glob("*.cmake"))) if p.exists()]


def is_test(where):
    return where.startswith("tests/") or Path(where).stem.endswith("_test")


def check_file_length(where, text):
    limit = TEST_FILE_LINES if is_test(where) else FILE_LINES
    count = len(text.splitlines())
    if count > limit:
        yield f"{where}:{count}: the file has {count} lines, more than {limit}: split it by purpose"


def check_function(where, function, exceptions):
    """Violations of one function; sets the exceptions that it uses to None."""
    limit = KERNEL_LINES if where.startswith(KERNEL_FOLDER) else FUNCTION_LINES
    measured = [("lines", function.lines, limit), ("parameters", function.parameters, PARAMETERS)]
    for what, size, most in measured:
        key = (str(Path(where).with_suffix("")), function.name, what)
        if size > most and key in exceptions:
            exceptions[key] = None
        elif size > most:
            yield f"{where}:{function.line}: {function.name} has {size} {what}, more than {most}"


def p90(lengths):
    return statistics.quantiles(lengths, n=10, method="inclusive")[-1]


def check_statistics(lengths):
    if len(lengths) < 2:
        return
    measured = [("median", statistics.median(lengths), MEDIAN_LINES), ("90th percentile", p90(lengths), P90_LINES)]
    for name, value, most in measured:
        if value > most:
            yield f"functions: the {name} of their lines is {value:g}, more than {most}"


def check(files, exceptions):
    """Checks {where: text}. Returns the violations and the line of statistics."""
    violations, functions, exceptions = [], [], dict(exceptions)
    for where, text in files.items():
        violations += check_file_length(where, text)
        if where.endswith((".h", ".cpp")):
            for function in scan(text):
                violations += check_function(where, function, exceptions)
                if function.has_body:
                    functions.append((function.lines, f"{function.name} at {where}:{function.line}"))
    stale = [key for key, unused in exceptions.items() if unused]
    violations += [f"{where}: {name} needs no exception for its {what} any more" for where, name, what in stale]
    lengths = [lines for lines, _ in functions if lines >= COUNTED_FROM_LINES]
    violations += check_statistics(lengths)
    return violations, describe(files, functions, lengths)


def describe(files, functions, lengths):
    if len(lengths) < 2:
        return f"{len(files)} files, {len(functions)} functions"
    longest = max(functions)
    return (f"{len(files)} files; {len(functions)} functions, {len(lengths)} of {COUNTED_FROM_LINES} lines or more: "
            f"median {statistics.median(lengths):g}, 90th percentile {p90(lengths):g}, longest {longest[0]} ({longest[1]})")


def main():
    files = {str(p.relative_to(ROOT)): p.read_text() for p in source_files(ROOT)}
    violations, summary = check(files, EXCEPTIONS)
    for violation in violations:
        print(violation)
    print(summary)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
