#!/usr/bin/env python3
"""Makes tests/fixtures/perplexity/smollm2.json: what transformers scores SmolLM2-135M-Instruct on real text.

Needs torch, transformers 5, tokenizers and gguf. Usage:
    make_perplexity_fixtures.py MODEL.gguf TOKENIZER.json WIKITEXT2_RAW_TEST.txt OTHER.txt [OUT]

Text: CRLF -> LF, the whole file tokenized without BOS, cut into windows of 1,024 tokens that do not overlap. A window's
number is the mean over its 1,023 predicted tokens of -log p (natural); perplexity = exp(mean over windows).
"""

import math
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from fixture_io import write_json
from smollm2 import load_model

WINDOW = 1024
# first window, how many, computed in; bfloat16 shows by how much rounding every product moves the number
WIKITEXT_RANGES = [(0, 4, ["float32", "bfloat16"]), (8, 8, ["float32"])]
OTHER_RANGES = [(0, 8, ["float32"])]


def read_tokens(tokenizer, path):
    text = Path(path).read_bytes().decode("utf-8").replace("\r\n", "\n")
    return tokenizer.encode(text, add_special_tokens=False).ids


@torch.no_grad()
def window_nll(model, tokens, index):
    window = torch.tensor([tokens[index * WINDOW:(index + 1) * WINDOW]])
    logits = model(window).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, window[0, 1:]).item()


def score_range(model, tokens, first, windows):
    nll = [window_nll(model, tokens, index) for index in range(first, first + windows)]
    perplexity = math.exp(sum(nll) / len(nll))
    print(f"windows {first}..{first + windows - 1}: {perplexity:.5f}", flush=True)
    return {"perplexity": round(perplexity, 5), "window_nll": [round(x, 7) for x in nll]}


def score_text(models, tokenizer, path, ranges):
    tokens = read_tokens(tokenizer, path)
    rows = [{"first": first, "windows": windows, **{dtype: score_range(models[dtype], tokens, first, windows)
                                                    for dtype in dtypes}} for first, windows, dtypes in ranges]
    return {"file": Path(path).name, "tokens": len(tokens), "ranges": rows}


def main():
    model_path, tokenizer_path, wikitext, other = sys.argv[1:5]
    root = Path(__file__).resolve().parent.parent
    out = sys.argv[5] if len(sys.argv) > 5 else root / "tests/fixtures/perplexity/smollm2.json"
    models = {name: load_model(model_path, getattr(torch, name)) for name in ["float32", "bfloat16"]}
    tokenizer = Tokenizer.from_file(tokenizer_path)
    texts = [score_text(models, tokenizer, wikitext, WIKITEXT_RANGES),
             score_text(models, tokenizer, other, OTHER_RANGES)]
    write_json(out, {"model": Path(model_path).name, "weights": "bfloat16", "window": WINDOW, "texts": texts})


if __name__ == "__main__":
    main()
