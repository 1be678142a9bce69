#!/usr/bin/env python3
"""Makes tests/fixtures/generate/smollm2_greedy.json: greedy continuations of 64 tokens by transformers.

Needs torch, transformers 5, tokenizers and gguf. Usage: make_generate_fixtures.py MODEL.gguf TOKENIZER.json [OUT]

The weights are rounded to bf16 and everything else is fp32. An engine that rounds elsewhere can take another token where
two logits nearly tie, so a prompt is refused when its smallest margin on the way is below MIN_MARGIN. (Rounding the
inputs of all linear layers, the keys and the values to bf16 moved these margins by less than 0.1.)
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from fixture_io import write_json
from smollm2 import load_model

NEW_TOKENS = 64
MIN_MARGIN = 0.15
PROMPTS = {  # none of them meets an end-of-text token on the way
    "prose": "The sun is a star. It is made of",
    "code": "def is_prime(n):\n    if n < 2:\n        return False\n",
    "list": "10, 20, 30, 40, 50, 60, 70,",
    "question": "Question: What is 2 + 1?\nAnswer: 3\nQuestion: What is 2 + 2?\nAnswer: 4\n"
                "Question: What is 2 + 3?\nAnswer:",
    "chat": "<|im_start|>user\nWrite a Python function that adds two numbers.<|im_end|>\n<|im_start|>assistant\n",
}


@torch.no_grad()
def continue_greedily(model, prompt_ids):
    """NEW_TOKENS tokens and the smallest lead of a best logit over the second best."""
    out = model(torch.tensor([prompt_ids]), use_cache=True)
    tokens, margins = [], []
    for _ in range(NEW_TOKENS):
        best = out.logits[0, -1].topk(2)
        tokens.append(best.indices[0].item())
        margins.append((best.values[0] - best.values[1]).item())
        out = model(torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values, use_cache=True)
    return tokens, min(margins)


def make_case(model, tokenizer, name, prompt):
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    output_ids, margin = continue_greedily(model, prompt_ids)
    text = tokenizer.decode(output_ids, skip_special_tokens=False)
    print(f"{name}: smallest margin {margin:.4f}: {text!r}")
    return {"name": name, "prompt": prompt, "prompt_ids": prompt_ids, "output_ids": output_ids, "output_text": text,
            "smallest_margin": round(margin, 4)}


def main():
    model = load_model(sys.argv[1])
    tokenizer = Tokenizer.from_file(sys.argv[2])
    root = Path(__file__).resolve().parent.parent
    out = sys.argv[3] if len(sys.argv) > 3 else root / "tests/fixtures/generate/smollm2_greedy.json"
    cases = [make_case(model, tokenizer, name, prompt) for name, prompt in PROMPTS.items()]
    weak = [case["name"] for case in cases
            if case["smallest_margin"] < MIN_MARGIN or model.config.eos_token_id in case["output_ids"]]
    if weak:
        sys.exit(f"margin below {MIN_MARGIN} or an end-of-text token, choose other prompts: {weak}")
    write_json(out, {"model": Path(sys.argv[1]).name, "weights": "bfloat16", "compute": "float32", "cases": cases})


if __name__ == "__main__":
    main()
