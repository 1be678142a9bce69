"""lm-evaluation-harness on rows that lie here: its own task files make the prompts, targets and metrics.

Nothing is fetched: where a task names a data set of the hub, it gets the rows of a file instead, which have the hub's
fields. HellaSwag's rows come as questions that are prepared already (query, choices, gold), so its own preparation is left
out. Needs torch, transformers, datasets and lm-eval (made with 0.4.13).
"""

import gzip
import json
import logging
import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import lm_eval.tasks
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import PreTrainedTokenizerFast

from smollm2 import load_model

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it remarks on every task that its rows are ours

# task -> lm-eval's file below lm_eval/tasks, our rows below the data folder
FILES = {
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc_ARC-Easy_validation.jsonl"),
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc_ARC-Challenge_validation.jsonl"),
    "piqa": ("piqa/piqa.yaml", "piqa_plain_text_validation.jsonl"),
    "winogrande": ("winogrande/default.yaml", "winogrande_winogrande_xl_validation.jsonl"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "openbookqa_main_validation.jsonl"),
    "commonsense_qa": ("commonsense_qa/default.yaml", "tau_commonsense_qa_none_validation.jsonl"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag-1000/rc_5shot/requests.jsonl.gz"),
    "hellaswag_5shot": ("hellaswag/hellaswag.yaml", "hellaswag-1000/rc_5shot/requests.jsonl.gz"),
    "mmlu": ("mmlu/default/mmlu_{subject}.yaml", "mmlu_validation.jsonl"),
}
MMLU_EXAMPLES, MMLU_SHOTS = "mmlu_dev.jsonl", 5


def load_lm(model, tokenizer, batch_size, dtype=torch.float32):
    """lm-eval's transformers backend around the default model. Its tokenizer adds no token of its own."""
    words = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), bos_token="<|im_start|>", eos_token="<|im_end|>",
                                    pad_token="<|im_end|>")
    return HFLM(pretrained=load_model(model, dtype, weights=dtype), tokenizer=words, batch_size=batch_size)


def read_lines(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def hellaswag_rows(path, shots):
    """One row a question of a file with one request a choice: the bare question, or with the shots before it."""
    rows = {}
    for line in read_lines(path):
        query = line["request"]["context"] if shots else line["doc"]["query"]
        rows[line["doc_id"]] = {"query": query, "choices": line["doc"]["choices"], "label": line["doc"]["gold"]}
    return [rows[doc_id] for doc_id in sorted(rows)]


def read_rows(task, data):
    path = Path(data) / FILES[task][1]
    return hellaswag_rows(path, task == "hellaswag_5shot") if task.startswith("hellaswag") else read_lines(path)


def local_task(config, rows, examples=()):
    """lm-eval's task of a file, with other rows: those to score, and those to show before each."""
    splits = {"validation": datasets.Dataset.from_list(rows)}
    if examples:
        splits["dev"] = datasets.Dataset.from_list(examples)
    settings = load_yaml(Path(lm_eval.tasks.__file__).parent / config)
    settings.update(custom_dataset=lambda **_: splits, process_docs=None, training_split=None, test_split=None,
                    validation_split="validation", num_fewshot=MMLU_SHOTS if examples else 0)
    return ConfigurableTask(config=settings)


def mmlu_tasks(rows, picked, data):
    """One task per subject: each has its own description and examples."""
    examples, by_subject = read_lines(Path(data) / MMLU_EXAMPLES), defaultdict(list)
    for index in picked:
        by_subject[rows[index]["subject"]].append(index)
    for subject, indices in by_subject.items():
        shown = [row for row in examples if row["subject"] == subject]
        yield local_task(FILES["mmlu"][0].format(subject=subject), [rows[index] for index in indices], shown), indices


def load_tasks(name, data, picked):
    """(lm-eval's task, the rows' indices in our file) pairs; `picked` makes the indices from the number of rows."""
    rows = read_rows(name, data)
    indices = list(picked(len(rows)))
    if name == "mmlu":
        return list(mmlu_tasks(rows, indices, data))
    return [(local_task(FILES[name][0], [rows[index] for index in indices]), indices)]


def first(count):
    """Of load_tasks: the first rows, or all (0)."""
    return lambda rows: range(min(count, rows) if count else rows)


def spread(count):
    """Of load_tasks: rows at equal distances."""
    return lambda rows: range(0, rows - rows % count, rows // count)


class Question:
    """What lm-eval asks and what the model made of it. `metrics`: acc, and acc_norm where its task has it."""

    def __init__(self, row, requests, results, metrics):
        self.row, self.requests, self.results, self.metrics = row, requests, results, metrics


def score(lm, tasks, quiet=False):
    """Questions of (task, indices) pairs. All requests go to the model at once, as in lm-eval's evaluate()."""
    for task, _ in tasks:
        task.build_all_requests()
    requests = [request for task, _ in tasks for request in task.instances]
    results = iter(lm.loglikelihood(requests, disable_tqdm=quiet))
    questions = []
    for task, indices in tasks:
        by_row = defaultdict(list)
        for request in task.instances:
            by_row[request.doc_id].append((request, next(results)))
        for local, pairs in by_row.items():
            metrics = task.process_results(task.eval_docs[local], [result for _, result in pairs])
            questions.append(Question(indices[local], [request.args for request, _ in pairs],
                                      [result[0] for _, result in pairs], metrics))
    return questions
