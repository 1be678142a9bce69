#!/usr/bin/env python3
"""Makes tests/fixtures/eval/choices_smollm2.json: what lm-evaluation-harness scores SmolLM2-135M-Instruct on questions.

Needs torch, transformers 5, gguf and lm-eval 0.4.13 (half an hour and more on one core). Usage:
    make_choice_fixtures.py MODEL.gguf TOKENIZER.json DATA/eval [OUT]

Each task holds lists with one item a question: `rows` are indices of lines in `file` (of questions where it holds one line
a choice), `log_likelihood` the sum over a choice's tokens in fp32, `tokens` how many they are, `acc` and `acc_norm` whether
lm-eval counts the answer as right (acc_norm where its task has that metric), and `prompt` the first question as lm-eval asks
it: context and continuation, choice by choice. Weights are what the file says, in fp32.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

from fixture_io import floats, write_json
from lm_eval_tasks import FILES, MMLU_SHOTS, first, load_lm, load_tasks, score, spread

# MMLU lies in the order of its subjects: rows far apart show their many descriptions.
QUESTIONS = {"arc_easy": first(200), "piqa": first(200), "winogrande": first(200), "hellaswag": first(200),
             "arc_challenge": first(20), "openbookqa": first(20), "commonsense_qa": first(20), "mmlu": spread(20),
             "hellaswag_5shot": first(10)}


def columns(lm, name, questions):
    tokens = [[len(lm._encode_pair(*request)[1]) for request in question.requests] for question in questions]
    made = {"file": FILES[name][1], "shots": MMLU_SHOTS if name == "mmlu" else 0,
            "rows": [question.row for question in questions],
            "log_likelihood": [floats(question.results) for question in questions], "tokens": tokens}
    for metric in ("acc", "acc_norm"):
        if metric in questions[0].metrics:
            made[metric] = [int(question.metrics[metric]) for question in questions]
    made["prompt"] = questions[0].requests
    return made


def summary(name, made):
    shares = [f"{metric} {sum(made[metric]) / len(made[metric]):.4f}" for metric in ("acc", "acc_norm") if metric in made]
    return f"{name}: {len(made['rows'])} questions, {', '.join(shares)}"


def main():
    model, tokenizer, data = sys.argv[1:4]
    root = Path(__file__).resolve().parent.parent
    out = sys.argv[4] if len(sys.argv) > 4 else root / "tests/fixtures/eval/choices_smollm2.json"
    torch.set_num_threads(1)
    lm = load_lm(model, tokenizer, 1)
    content = {"model": Path(model).name, "weights": "float32", "lm_eval": version("lm-eval")}
    for name, picked in QUESTIONS.items():
        content[name] = columns(lm, name, score(lm, load_tasks(name, data, picked)))
        print(summary(name, content[name]), flush=True)
        write_json(out, content)  # after each task: it takes long


if __name__ == "__main__":
    main()
