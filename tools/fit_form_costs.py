#!/usr/bin/env python3
"""Fits the constants by which the runtime chooses between the two forms of latent attention (src/runtime/form_costs.cpp).

    fit_form_costs.py CONVERTED... [--kv-cache int4-c] [--threads 2]

Times chunks of several lengths behind caches of several depths in both forms, with `mha2mla bench`, and finds the three
costs that explain the differences best: of a multiply-add of a query and a cached row, of a multiply-add that rebuilds keys
and values, of a number that rebuilding loads or stores. MHA2MLA_ISA=avx2 (and so on) measures another instruction set.
Needs numpy, and a machine that does nothing else.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

import numpy as np

NAMES = ("attended", "rebuilt", "moved")
LINE = r"^(\S+) +depth +(\d+) chunk +(\d+): absorbed +([\d.]+) ms, expanded +([\d.]+) ms$"


def sizes_of_layers(folder):
    """(heads, KV heads, rank and rotary width of a row that a head reads, un-rotated, rotated, value width) of every layer."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    mla, layers = config["mla"], config["num_hidden_layers"]

    def of_layer(value, layer):
        return value[layer] if isinstance(value, list) else value

    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    for layer in range(layers):
        rank, rope, nope, value, keys = (of_layer(mla[name], layer) for name in (
            "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "num_rope_key_heads"))
        groups = mla.get("latent_groups", 1)
        yield heads, kv_heads, rank // groups, keys * rope // groups, nope, rope, value


def work(folder, depth, chunk):
    """What the expanded form does beyond the absorbed one, in units of each cost."""
    keys, total = depth + chunk, np.zeros(3)
    pairs = chunk * depth + chunk * (chunk + 1) / 2
    for heads, kv_heads, rank, rotary, nope, rope, value in sizes_of_layers(folder):
        total += (pairs * heads * (nope + rope + value - 2 * rank - rotary),
                  (keys * kv_heads - chunk * heads) * rank * (nope + value),
                  keys * kv_heads * (rank + rotary + nope + rope + value))
    return total


def seconds(options, folder, chunk, form):
    """{depth: seconds of a chunk}."""
    command = [options.program, "bench", folder, "--attention", form, "--kv-cache", options.kv_cache, "--threads",
               str(options.threads), "--prefill", str(chunk), "--decode", "0", "--depth", ",".join(map(str, options.depths)),
               "--repetitions", str(options.repetitions), "--allow-long-context", "--json", "--log-level", "quiet"]
    results = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {result["depth"]: chunk / result["tokens_per_second"] for result in results}


def measure(options):
    """A line for each chunk: what it does more when expanded, and the seconds that it takes in either form."""
    for folder in options.models:
        for chunk in options.chunks:
            times = {form: seconds(options, folder, chunk, form) for form in ("absorbed", "expanded")}
            for depth in options.depths:
                absorbed, expanded = times["absorbed"][depth], times["expanded"][depth]
                print(f"{Path(folder).name:20} depth {depth:5} chunk {chunk:4}: absorbed {1000 * absorbed:8.2f} ms, "
                      f"expanded {1000 * expanded:8.2f} ms", flush=True)
                yield work(folder, depth, chunk), absorbed, expanded


def read(options):
    """The lines that earlier runs printed."""
    folders = {Path(folder).name: folder for folder in options.models}
    for file in options.lines:
        for name, *values in re.findall(LINE, Path(file).read_text(encoding="utf-8"), re.MULTILINE):
            depth, chunk, absorbed, expanded = map(float, values)
            yield work(folders[name], depth, chunk), absorbed / 1000, expanded / 1000


def fit(work_done, absorbed, expanded):
    """Least squares of the differences, each relative to what the faster form takes, by costs that are not negative."""
    fastest = np.minimum(absorbed, expanded)
    a, b = work_done / fastest[:, None], (expanded - absorbed) / fastest
    best, costs = np.inf, np.zeros(3)
    for used in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):
        some, *_ = np.linalg.lstsq(a[:, used], b, rcond=None)
        error = np.sum((a[:, used] @ some - b) ** 2)
        if (some >= 0).all() and error < best:
            best, costs = error, np.zeros(3)
            costs[used] = some
    return costs


def judge(what, is_expanded, absorbed, expanded):
    times = np.where(is_expanded, expanded, absorbed) / np.minimum(absorbed, expanded)
    print(f"{what}: the faster form for {(times == 1).sum()} of {len(times)} chunks; {times.mean():.3f} times as long as the faster "
          f"one in the mean, {times.max():.2f} at most")


def numbers(text):
    return [float(word) for word in text.split(",")]


def sizes(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="converted models")
    parser.add_argument("--program", default="build/release/mha2mla", help="the executable (default: build/release/mha2mla)")
    parser.add_argument("--lines", nargs="+", default=[], help="fit what earlier runs printed into these files instead")
    parser.add_argument("--costs", type=numbers, help="judge these three, too: 6.5,3,199")
    parser.add_argument("--depths", type=sizes, default=[0, 1024, 4096], help="cached tokens (default: 0,1024,4096)")
    parser.add_argument("--chunks", type=sizes, default=[2, 8, 16, 32, 64, 128, 256],
                        help="tokens of a chunk (default: 2,8,16,32,64,128,256)")
    parser.add_argument("--kv-cache", default="int4-c", help="of the models (default: int4-c)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--repetitions", type=int, default=7, help="of each measurement, whose median counts (default: 7)")
    options = parser.parse_args()
    points = list(read(options) if options.lines else measure(options))
    work_done, absorbed, expanded = (np.array(column) for column in zip(*points))
    fitted = fit(work_done, absorbed, expanded)
    print(", ".join(f"{name} {1e12 * cost:.1f} ps" for name, cost in zip(NAMES, fitted)))
    judge("fitted", work_done @ fitted < 0, absorbed, expanded)
    if options.costs:
        judge("given", work_done @ options.costs < 0, absorbed, expanded)


if __name__ == "__main__":
    main()
