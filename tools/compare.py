#!/usr/bin/env python3
"""Compares a source model and its conversion side by side: cache, perplexity, decode speed, and what they write. The
conversion comes twice, with its cache in 16 bits and in fewer.

Runs `mha2mla eval|bench|generate --json`; needs nothing beyond Python's standard library. Example:
    compare.py build/release/mha2mla SmolLM2.gguf converted/ --text docs/conversion.md
"""

import argparse
import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass

VERDICT = ("So small a cache breaks this model without recovery training, as the perplexity and the text above show: what "
           "is gained here is cache, not yet a usable model.")
BROKEN = 2  # times the source's perplexity: from here on the verdict is printed
WIDTH = 100


@dataclass
class Measurement:
    eval: dict
    bench: list
    generate: dict

    def decode(self, depth):
        """The bench result of decoding after `depth` tokens."""
        for result in self.bench:
            if result["test"].startswith("tg") and result["depth"] == depth:
                return result
        sys.exit(f"error: `bench --json` has no decode result at depth {depth}")


def run_json(options, verb, model, arguments):
    """One verb's JSON. Its progress goes to our own stderr, its error line too."""
    command = [options.mha2mla, verb, model, *arguments, "--json"]
    if options.threads:
        command += ["--threads", str(options.threads)]
    print(f"  {verb} {model}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            sys.exit(f"error: `{' '.join(command)}` ended with exit code {done.returncode}")
        return json.loads(done.stdout)
    except (OSError, json.JSONDecodeError) as error:
        sys.exit(f"error: `{' '.join(command)}`: {error}")


def measure(options, model, kv_cache):
    depths = ",".join(str(depth) for depth in options.depth)
    windows = ["--window", str(options.window), "--first", "0", "--windows", str(options.windows)]
    cache = ["--kv-cache", kv_cache]
    return Measurement(
        run_json(options, "eval", model, ["--task", "perplexity", "--text", options.text, *windows, *cache]),
        run_json(options, "bench", model, ["--prefill", "0", "--decode", "32", "--depth", depths, *cache]),
        run_json(options, "generate", model, ["-p", options.prompt, "-n", str(options.tokens), *cache]))


def percent(source, converted):
    return f"{100 * (converted / source - 1):+.1f} %"


def times(source, converted):
    return f"{converted / source:,.2f} x"


def table_rows(options, source, conversions):
    """(label, source, then each conversion and its change) as text."""
    def row(label, pick, form, change):
        left = pick(source)
        cells = [label, form.format(left)]
        for converted in conversions:
            cells += [form.format(pick(converted)), change(left, pick(converted))]
        return cells

    deepest = max(options.depth)
    rows = [
        row("KV cache, bytes per token (formula)", lambda m: m.eval["kv_cache"]["bytes_per_token"], "{:,.0f}", percent),
        row(f"KV cache, bytes per token (allocated, depth {deepest:,})",
            lambda m: m.decode(deepest)["kv_bytes_per_token_allocated"], "{:,.0f}", percent),
        row(f"perplexity ({options.windows} windows of {options.window:,})", lambda m: m.eval["perplexity"], "{:,.2f}",
            times)]
    for depth in options.depth:
        rows.append(row(f"decode, tokens/s at depth {depth:,}", lambda m, at=depth: m.decode(at)["tokens_per_second"],
                        "{:,.1f}", times))
    return rows


def plain_table(rows):
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def markdown_table(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
    return "\n".join(lines)


def continuation(label, prompt, text, markdown):
    if markdown:
        quoted = "\n".join("> " + line for line in (prompt + text).splitlines())
        return f"**{label}**\n\n{quoted}"
    lines = [textwrap.fill(line, WIDTH, initial_indent="    ", subsequent_indent="    ")
             for line in (prompt + text).splitlines()]
    return f"{label}:\n" + "\n".join(lines)


def report(options, source, converted, quantized):
    header = ["", "source", "converted", "change", f"its cache in {options.kv_cache}", "change"]
    rows = [header, *table_rows(options, source, [converted, quantized])]
    parts = [markdown_table(rows) if options.markdown else plain_table(rows)]
    for label, result in [("source writes", source), ("converted writes", converted),
                          (f"with its cache in {options.kv_cache} it writes", quantized)]:
        parts.append(continuation(label, options.prompt, result.generate["text"], options.markdown))
    if converted.eval["perplexity"] >= BROKEN * source.eval["perplexity"]:
        parts.append(VERDICT if options.markdown else textwrap.fill(VERDICT, WIDTH))
    return "\n\n".join(parts)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mha2mla", help="the executable")
    parser.add_argument("source", help="source model: a directory or a GGUF file")
    parser.add_argument("converted", help="converted model: a directory")
    parser.add_argument("--text", required=True, help="text file for the perplexity")
    parser.add_argument("--window", type=int, default=1024, help="tokens of a perplexity window (default 1024)")
    parser.add_argument("--windows", type=int, default=8, help="perplexity windows (default 8; 0: all)")
    parser.add_argument("--depth", type=lambda text: [int(part) for part in text.split(",")], default=[0, 4096],
                        help="tokens in the cache when decoding is timed (default 0,4096)")
    parser.add_argument("--kv-cache", default="int4-c", help="the converted model's smaller cache (default int4-c)")
    parser.add_argument("--prompt", default="The history of the lighthouse begins", help="text that both continue")
    parser.add_argument("--tokens", type=int, default=48, help="tokens to write (default 48)")
    parser.add_argument("--threads", type=int, default=0, help="threads (default: mha2mla's own)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser.parse_args()


def main():
    options = parse_arguments()
    source = measure(options, options.source, "bf16")
    converted = measure(options, options.converted, "bf16")
    quantized = measure(options, options.converted, options.kv_cache)
    print(report(options, source, converted, quantized))


if __name__ == "__main__":
    main()
