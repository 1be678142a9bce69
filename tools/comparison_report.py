"""The table (Markdown) of what tools/compare_llama_cpp.py measured: its file, and its part of README.md.

    comparison_report.py OUT README.md     writes OUT.jsonl's table into README.md, between two marker lines
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from comparison_cases import CACHE_DEPTH, CACHE_TARGET, FULL, PEER_WEIGHTS, Setup, all_groups, target
from comparison_rows import Rows
from llama_cpp_setup import PACKAGES, Failure
from machine_load import BUSY_CORES
from results_report import machine

BEGIN, END = "<!-- compare-llama-cpp: begin -->", "<!-- compare-llama-cpp: end -->"
UNITS = {"decode": "tokens/s", "prefill": "tokens/s", "batch": "tokens/s", "attention": "ms", "memory": "MB", "cache": "MB"}
LESS_IS_BETTER = ("memory", "cache")  # the ratio is one of bytes; that of times is one of speeds


@dataclass(frozen=True)
class Line:
    work: str
    text: str
    side: str
    weights: str
    ours: float
    peer: float
    target: float | None

    @property
    def ratio(self):
        return self.peer / self.ours if self.work == "attention" else self.ours / self.peer

    @property
    def met(self):
        if self.target is None:
            return None
        return self.ratio <= self.target if self.work in LESS_IS_BETTER else self.ratio >= self.target


def lines_of_group(group, rows):
    peer = rows.median(group, "llama.cpp")
    for side in group.ours:
        ours = rows.median(group, side)
        if ours and peer:
            scale = 1e6 if group.work == "memory" else 1
            yield Line(group.work, group.text(), side, group.weights, ours / scale, peer / scale, target(group, side))


def f16_cache_bytes(rows, group):
    """llama.cpp's, a token, where it ran with an f16 cache in this group or another."""
    found = [row["cache_bytes_per_token"] for row in rows.all()
             if row["side"] == "llama.cpp" and row["kv"] == "f16" and row["group"]["model"] == group.model]
    return min(found, default=None)


def cache_lines(groups, rows):
    """Once, whatever the weights: what 8,192 tokens take of the cache."""
    for group in groups:
        if group.work != "decode" or group.depth != CACHE_DEPTH:
            continue
        ours, peer = rows.median(group, "converted", "cache_bytes_per_token"), f16_cache_bytes(rows, group)
        if ours and peer:
            scale = CACHE_DEPTH / 1e6
            yield Line("cache", f"cache allocated, depth {CACHE_DEPTH:,}, against f16", "converted", "any", ours * scale,
                       peer * scale, CACHE_TARGET)
            return


def table_lines(groups, rows):
    lines = [line for group in groups for line in lines_of_group(group, rows)]
    return lines + list(cache_lines(groups, rows))


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.1f}"


def cells(line):
    less = line.work in LESS_IS_BETTER
    ratio = f"{100 * line.ratio:.1f} %" if less else f"{line.ratio:.2f}x"
    aim = "" if line.target is None else f"<= {100 * line.target:.0f} %" if less else f">= {line.target:g}x"
    met = {None: "", True: "yes", False: "no"}[line.met]
    return [line.text, line.side, line.weights, f"{number(line.ours)} {UNITS[line.work]}", number(line.peer), ratio, aim, met]


def markdown_table(lines):
    head = ["work", "our model", "weights", "ours", "llama.cpp", "ratio", "target", "met"]
    rows = ["| " + " | ".join(head) + " |", "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |"]
    return "\n".join(rows + ["| " + " | ".join(cells(line)) + " |" for line in lines])


def settings_list(groups, rows):
    """With what llama.cpp ran."""
    found = []
    for group in groups:
        for row in rows.of(group, "llama.cpp")[:1]:
            flash = "on" if row["flash"] else "off"
            found.append(f"- {group.text()}, {PEER_WEIGHTS[group.weights]} weights: flash attention {flash}, {row['kv']} cache")
    return "llama.cpp's settings, the fastest of a trial:\n\n" + "\n".join(found) if found else ""


def disturbances(rows):
    measured = [row for row in rows.all() if row["side"] != "trial"]
    busy = sum(row["other_cores"] > BUSY_CORES for row in measured)
    return f"In {busy} of {len(measured)} runs other processes kept more than {BUSY_CORES} cores busy." if busy else \
        f"No other process took part in any of the {len(measured)} runs."


def clocks(rows):
    shares = [row["own_clock"] for row in rows.all() if "own_clock" in row]
    return f"llama.cpp's own clock counts {min(shares):.3f} to {max(shares):.3f} of the seconds that we do." if shares else ""


def setup_of(rows):
    """That of the latest run."""
    group = rows.all()[-1]["group"]
    return Setup(group["source"], group["threads"], group["kv_cache"])


def origin(rows, command):
    versions = sorted({row["version"] for row in rows.all()})
    days = sorted({row["time"][:10] for row in rows.all()})
    period = days[0] if len(set(days)) == 1 else f"{days[0]} to {days[-1]}"
    threads = "/".join(sorted({str(row["group"]["threads"]) for row in rows.all()}))
    return (f"Made by `{command}` with {' and '.join(versions)} and {PACKAGES[0]} on {machine()}, {threads} threads on either "
            f"side, {period}. Medians of alternating runs. {disturbances(rows)} {clocks(rows)}").strip()


def explanation():
    return ("Either side runs the same weights: bf16 (ours coded in 12 bits, without loss), int8 (q8_0), int4 (q4_1). Our "
            "source model keeps a bf16 cache, the converted one is given its latent cache; in 8 latent groups means "
            "`convert --latent-groups 8` with as many elements cached; llama.cpp always runs the source model. A ratio above 1 means that we are faster, but for memory, where less is better. Memory of llama.cpp is "
            "that of its process less the Python interpreter.")


def write_report(path, groups, rows, command):
    if not rows.all():
        return
    lines = table_lines(groups, rows)
    parts = ["# mha2mla and llama.cpp, side by side", explanation(), markdown_table(lines), settings_list(groups, rows),
             origin(rows, command), f"Each run stands in [{Path(path).stem}.jsonl]({Path(path).stem}.jsonl)."]
    Path(path).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def readme_part(name, rows):
    """README's table: the rows that have a target."""
    lines = [line for line in table_lines(all_groups(FULL, setup_of(rows)), rows) if line.target is not None]
    where = f"[{name}]({name}.md)"
    return f"{markdown_table(lines)}\n\n{origin(rows, './dev compare-llama-cpp')} All rows: {where}."


def replace_part(text, part):
    """`text` with `part` between the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise Failure(f"the text must have the lines {BEGIN} and {END} once each, in this order")
    before, after = text[:text.index(BEGIN) + len(BEGIN)], text[text.index(END):]
    return f"{before}\n{part}\n{after}"


def main():
    name, readme = sys.argv[1:] if len(sys.argv) == 3 else sys.exit(__doc__)
    try:
        rows = Rows(f"{name}.jsonl")
        if not rows.all():
            raise Failure(f"{name}.jsonl has no rows")
        text = Path(readme).read_text(encoding="utf-8")
        Path(readme).write_text(replace_part(text, readme_part(name, rows)), encoding="utf-8")
    except (Failure, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
