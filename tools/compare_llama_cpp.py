#!/usr/bin/env python3
"""Compares mha2mla with llama.cpp on this machine, side by side: decode, prefill, many sequences, attention, memory.

    compare_llama_cpp.py OUT --program build/release/mha2mla --model MODEL.gguf --work build/compare_llama_cpp

Builds llama.cpp (the PyPI package llama-cpp-python) for this machine in an environment of its own below --work, makes its
files of the same weights, converts the model where --converted names none, finds llama.cpp's fastest settings in short
trials, and then measures both in turns. OUT.jsonl gets a line for each run as soon as it is made, OUT.md is the table of
the medians. Started again it goes on: lines that are there are kept, --fresh measures all anew. Needs nothing beyond
Python 3.11's standard library.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from comparison_cases import FULL, GROUPED, IN_GROUPS, QUICK, WEIGHTS, WIDE, WORKS, Setup, all_groups
from comparison_report import write_report
from comparison_rows import Rows
from comparison_runners import LlamaCpp, Ours
from llama_cpp_setup import Failure, Peer, run_logged
from machine_load import BUSY_CORES, Watch, other_cores, runnable


def say(text):
    print(text, file=sys.stderr, flush=True)


def warn_if_busy():
    busy = other_cores()
    if busy > BUSY_CORES:
        say(f"warning: the machine is not idle: other processes keep {busy:.1f} cores busy ({runnable()} threads want to "
            f"run, load average {os.getloadavg()[0]:.1f}); the numbers will be too low")


class Models:
    """Where our side's models lie; converts what is missing."""

    def __init__(self, options, peer):
        self.options, self.peer = options, peer
        self.work = Path(options.work)

    def __call__(self, name, side):
        if name in WIDE:
            return self.wide(name, side)
        if side == "source":
            return self.options.model
        return self.options.converted or self.convert(self.options.model, "default", "--cache-ratio", "0.3125",
                                                      "--statistics", self.work / "statistics")

    def wide(self, name, side):
        source = self.peer.wide(name)
        if side == "source":
            return source
        if side == IN_GROUPS:
            return self.convert(source, f"{name}-groups", "--method", "mha2mla", *GROUPED[name])
        return self.convert(source, name, "--method", "mha2mla", *WIDE[name])

    def convert(self, source, name, *arguments):
        target = self.work / f"converted-{name}"
        if not target.exists():
            say(f"converting {source} to {target}")
            run_logged([self.options.program, "convert", source, target, *arguments], self.work / f"log/convert-{name}.log")
        return target


class Comparison:
    def __init__(self, options):
        self.options = options
        self.sizes = QUICK if options.quick else FULL
        setup = Setup(Path(options.model).name, options.threads, options.kv_cache)
        self.all_groups = all_groups(self.sizes, setup)
        self.groups = [group for group in self.all_groups
                       if group.work in options.only and group.weights in options.weights]
        self.peer = Peer(options.work)
        self.models = Models(options, self.peer)
        self.ours = Ours(options, self.models)
        self.llama_cpp = LlamaCpp(options, self.peer, self.sizes)
        self.rows = Rows(f"{options.out}.jsonl")
        self.version = subprocess.run([options.program, "--version"], capture_output=True, text=True,
                                      check=True).stdout.strip()

    def todo(self, group):
        """(side, round) in the order of measuring: the sides take turns."""
        every = [(side, number) for number in range(group.rounds) for side in (*group.ours, "llama.cpp")]
        return [turn for turn in every if not self.rows.find(group, *turn)]

    def prepare(self):
        """All that takes long and is not measured."""
        self.peer.install(self.options.jobs)
        (Path(self.options.work) / "states").mkdir(exist_ok=True)
        for group in self.groups:
            if self.todo(group):
                self.llama_cpp.model(group)
                for side in group.ours:
                    self.models(group.model, side)

    def record(self, group, side, number, work):
        watch, start = Watch(), time.monotonic()
        result = work()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        row = {"group": group.key(), "side": side, "round": number, **result, "seconds": round(time.monotonic() - start, 1),
               "other_cores": round(watch.other_cores(), 2), "version": self.version, "time": now}
        self.rows.add(row)
        if row["other_cores"] > BUSY_CORES:
            say(f"  warning: others kept {row['other_cores']:.1f} cores busy meanwhile")
        if abs(1 - row.get("own_clock", 1)) > 0.05:
            say(f"  warning: llama.cpp's own clock counts {row['own_clock']:.2f} times our seconds")
        return row

    def setting(self, group):
        """llama.cpp's fastest flash attention and type of cache for a group, from a trial that is made once."""
        # Which is fastest does not depend on the weights, nor at 8,192 tokens on more than at the depth of trials.
        group = replace(group, weights="bf16" if group.model in WIDE else "int8",
                        depth=min(group.depth, self.sizes.trial_depth))
        if group.work == "memory":
            return True, "f16"  # its default, and the least memory
        row = self.rows.find(group, "trial", 0)
        if not row:
            def trial():
                speeds = self.llama_cpp.trial(group)
                fastest = max(speeds, key=speeds.get)
                return {"flash": fastest[0], "kv": fastest[1],
                        "trial": [[*setting, round(speed, 2)] for setting, speed in speeds.items()]}
            row = self.record(group, "trial", 0, trial)
            say(f"  llama.cpp is fastest with flash attention {'on' if row['flash'] else 'off'} and {row['kv']} cache")
        return row["flash"], row["kv"]

    def measure(self, group, side, number):
        if side == "llama.cpp":
            setting = self.setting(group)
            return self.record(group, side, number, lambda: self.llama_cpp.measure(group, setting))
        return self.record(group, side, number, lambda: self.ours.measure(group, side))

    def measure_group(self, group):
        turns = self.todo(group)
        if not turns:
            return
        say(f"{group.text()}, {group.weights}")
        for side, number in turns:
            row = self.measure(group, side, number)
            say(f"  {side} {number + 1}/{group.rounds}: {row['value']:,.4g} ({row['seconds']:.0f} s)")

    def measure_all(self):
        """How many groups failed."""
        failed = 0
        for group in self.groups:
            try:
                self.measure_group(group)
            except Failure as error:
                say(f"  failed: {error}")
                failed += 1
        return failed

    def report(self):
        command = "./dev compare-llama-cpp " + " ".join(sys.argv[1:2])
        write_report(f"{self.options.out}.md", self.all_groups, self.rows, command)


def words(allowed):
    def parse(text):
        chosen = text.split(",")
        for word in chosen:
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(allowed)}")
        return chosen
    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="OUT.jsonl and OUT.md are written, such as docs/results/llama-cpp")
    parser.add_argument("--program", required=True, help="the executable mha2mla")
    parser.add_argument("--model", required=True, help="source model, a GGUF file")
    parser.add_argument("--converted", help="its conversion (default: made, with 120 elements a token and layer)")
    parser.add_argument("--work", required=True, help="folder for llama.cpp, model files and filled caches")
    parser.add_argument("--kv-cache", default="int4-c", help="cache of the converted model (default: int4-c)")
    parser.add_argument("--only", type=words(WORKS), default=list(WORKS), help=f"some of {','.join(WORKS)}")
    parser.add_argument("--weights", type=words(WEIGHTS), default=list(WEIGHTS), help=f"some of {','.join(WEIGHTS)}")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default: 2)")
    parser.add_argument("--limit", type=int, default=1800, help="seconds that one run may take (default: 1800)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="parallel compile jobs of llama.cpp's build")
    parser.add_argument("--quick", action="store_true", help="tiny tests, to see that everything runs; proves nothing")
    parser.add_argument("--fresh", action="store_true", help="measure every row anew")
    return parser.parse_args()


def main():
    options = parse_arguments()
    for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_"))]:
        del os.environ[name]  # llama.cpp has as many threads as ours, whatever the shell says
    if options.fresh:
        Path(f"{options.out}.jsonl").unlink(missing_ok=True)
    start = time.monotonic()
    try:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.work).mkdir(parents=True, exist_ok=True)
        comparison = Comparison(options)
        comparison.prepare()
        warn_if_busy()
        failed = comparison.measure_all()
        comparison.report()
    except (Failure, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        sys.exit(130)
    say(f"{options.out}.md ({(time.monotonic() - start) / 60:.1f} min)")
    if failed:
        sys.exit(f"error: {failed} of {len(comparison.groups)} groups failed")


if __name__ == "__main__":
    main()
