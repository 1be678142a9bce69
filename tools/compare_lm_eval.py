#!/usr/bin/env python3
"""Compares the speed of `mha2mla eval --task commonsense` with lm-evaluation-harness, side by side on this machine.

    compare_lm_eval.py PROGRAM MODEL.gguf TOKENIZER.json DATA/eval [--limit 50] [--rounds 3] [--threads 2]

Both answer the same questions with the same number of threads and take turns. lm-eval runs transformers with
the batch size and the type that a short trial finds fastest: fp32, or bf16 where the processor has such products. Seconds:
what mha2mla says that scoring took, and its whole process with loading, reading and writing; of lm-eval prompts, tokens and
scores, without loading. Prints Markdown: the medians and lm-eval's ratio to either, then the accuracies, which agree up to
rounding where both measure the same. Needs torch, transformers 5, gguf and lm-eval 0.4.13.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch

from lm_eval_tasks import FILES, first, load_lm, load_tasks, score
from machine_load import BUSY_CORES, Watch, other_cores
from results_report import machine

BATCH_SIZES = (1, 8, 16)
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of a processor that multiplies such numbers
TRIAL_QUESTIONS = 8  # of each task
# Where the names differ. Our `hellaswag` takes the finished requests as they stand, with their five examples.
NAMES = {"hellaswag": "hellaswag_5shot", "commonsenseqa": "commonsense_qa"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_ours(options):
    command = [options.program, "eval", options.model, "--task", "commonsense", "--data", options.data,
               "--limit", options.limit, "--threads", options.threads, "--json", "--log-level", "quiet", *options.ours]
    start = time.monotonic()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {done.stderr.strip() or done.returncode}")
    return {**json.loads(done.stdout), "process_seconds": time.monotonic() - start}


def types():
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return [torch.float32, torch.bfloat16] if words & BF16_FLAGS else [torch.float32]


class Peer:
    """lm-eval on the tasks that our side named."""

    def __init__(self, options, names):
        torch.set_num_threads(options.threads)
        self.options, self.names = options, names
        self.lms = {kind: load_lm(options.model, options.tokenizer, 1, kind) for kind in types()}
        self.setting = self.fastest()

    def run(self, limit, setting=None):
        """(seconds, the questions of each task). As in lm-eval, all tasks' requests are batched together."""
        kind, size = setting or self.setting
        self.lms[kind].batch_size_per_gpu = size
        start = time.monotonic()
        tasks = {name: load_tasks(name, self.options.data, first(limit)) for name in self.names}
        questions = score(self.lms[kind], [part for parts in tasks.values() for part in parts], quiet=True)
        seconds, answered = time.monotonic() - start, iter(questions)
        counts = {name: sum(len(indices) for _, indices in parts) for name, parts in tasks.items()}
        return seconds, {name: [next(answered) for _ in range(count)] for name, count in counts.items()}

    def fastest(self):
        """(type, batch size)."""
        limit, seconds = min(TRIAL_QUESTIONS, self.options.limit or TRIAL_QUESTIONS), {}
        for kind in self.lms:
            self.run(1, (kind, 1))  # warm
            for size in BATCH_SIZES:
                seconds[kind, size] = self.run(limit, (kind, size))[0]
                say(f"lm-eval, {limit} questions a task, {setting_text(kind, size)}: {seconds[kind, size]:.1f} s")
        return min(seconds, key=seconds.get)


def setting_text(kind, size):
    return f"{'bf16' if kind == torch.bfloat16 else 'fp32'}, batch size {size}"


def watched(what, work):
    watch = Watch()
    made = work()
    if watch.other_cores() > BUSY_CORES:
        say(f"warning: others kept {watch.other_cores():.1f} cores busy during {what}")
    return made


def lm_eval_name(task):
    name = NAMES.get(task, task.replace("-", "_"))
    if name not in FILES:
        sys.exit(f"error: no lm-eval task is known for '{task}'; known: {', '.join(FILES)}")
    return name


def accuracy(questions, metric):
    found = [question.metrics[metric] for question in questions if metric in question.metrics]
    return f"{statistics.mean(found):.4f}" if found else ""


def speed_table(ours, theirs, options, setting):
    peer = statistics.median(theirs)
    lines = ["| | seconds | lm-eval takes |", "| --- | ---: | ---: |"]
    for name, field in (("mha2mla", "seconds"), ("mha2mla, the whole process", "process_seconds")):
        seconds = statistics.median(result[field] for result in ours)
        lines.append(f"| {name} | {seconds:.1f} | {peer / seconds:.2f}x |")
    lines.append(f"| lm-eval {version('lm-eval')}, {setting_text(*setting)} | {peer:.1f} | |")
    runs = "; ".join(f"{result['seconds']:.1f} and {seconds:.1f}" for result, seconds in zip(ours, theirs))
    return "\n".join(lines) + (f"\n\nMedians of alternating runs ({runs}), {options.threads} threads on either side, on "
                               f"{machine()}; torch {torch.__version__}, transformers {version('transformers')}.")


def accuracy_table(ours, theirs):
    lines = ["| task | questions | accuracy | lm-eval | normalized | lm-eval |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for task in ours["tasks"]:
        questions = theirs[lm_eval_name(task["task"])]
        if len(questions) != task["questions"]:
            say(f"warning: {task['task']}: {task['questions']} questions here, {len(questions)} in lm-eval")
        normalized = task.get("accuracy_norm")
        cells = [task["task"], task["questions"], f"{task['accuracy']:.4f}", accuracy(questions, "acc"),
                 "" if normalized is None else f"{normalized:.4f}", accuracy(questions, "acc_norm")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the executable mha2mla")
    parser.add_argument("model", help="GGUF file of the default model")
    parser.add_argument("tokenizer", help="its tokenizer.json")
    parser.add_argument("data", help="folder of the questions")
    parser.add_argument("--limit", type=int, default=50, help="questions of a task (default 50; 0: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of either side (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of either side (default 2)")
    parser.add_argument("--ours", nargs=argparse.REMAINDER, default=[], help="what follows goes to mha2mla eval as well")
    return parser.parse_args()


def main():
    options = parse_arguments()
    busy = other_cores()
    if busy > BUSY_CORES:
        say(f"warning: the machine is not idle: other processes keep {busy:.1f} cores busy")
    result = run_ours(options)  # warms the file cache and names the tasks
    peer = Peer(options, [lm_eval_name(task["task"]) for task in result["tasks"]])
    ours, theirs = [], []
    for number in range(options.rounds):
        result = watched("our run", lambda: run_ours(options))
        seconds, questions = watched("lm-eval's run", lambda: peer.run(options.limit))
        ours.append(result)
        theirs.append(seconds)
        say(f"round {number + 1}: {result['seconds']:.1f} s, lm-eval {seconds:.1f} s")
    print(f"{speed_table(ours, theirs, options, peer.setting)}\n\n{accuracy_table(result, questions)}")


if __name__ == "__main__":
    main()
