#!/usr/bin/env python3
"""Makes tests/fixtures/convert: what the published conversion, written in plain torch, does to two models.

Needs torch and transformers 5, for SmolLM2 also tokenizers and gguf. Usage:
    make_convert_fixtures.py                                             tiny-gqa.json
    make_convert_fixtures.py MODEL.gguf TOKENIZER.json WIKITEXT2_RAW_TEST.txt    and smollm2.json

tiny-gqa.json: pairs, reproduced energy by layer and logits of the tiny model after each conversion, all in fp32.
smollm2.json: perplexity of windows 0..3; source weights and factors rounded to bf16 as stored, sums in fp32.
"""

import copy
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from fixture_io import floats, write_json
from reference_conversion import Conversion, convert, two_norm_pairs

ROOT = Path(__file__).resolve().parent.parent
POSITIONS = [7, 23, 47]
TINY = {
    "uniform-none": Conversion("uniform", 2, "none"),
    "high-none": Conversion("high", 2, "none"),
    "low-none": Conversion("low", 2, "none"),
    "uniform-joint": Conversion("uniform", 2, "joint-svd", kv_rank=8),
    "high-joint": Conversion("high", 2, "joint-svd", kv_rank=8),
    "uniform-split": Conversion("uniform", 2, "split-svd", kv_rank=8),
    "uniform-split-full-rank": Conversion("uniform", 2, "split-svd", kv_rank=8, split_full_rank=True),
}
SMOLLM2 = {
    "uniform-none": Conversion("uniform", 4, "none"),
    "uniform-joint": Conversion("uniform", 4, "joint-svd", kv_rank=32),
    "high-joint": Conversion("high", 4, "joint-svd", kv_rank=32),
}


@torch.no_grad()
def two_norm_plan(model, tokens, rope_pairs):
    """[layers, G, r]: 2-norm pairs by the queries and keys of the source model on `tokens`."""
    plan = []

    def record(attention, _, inputs):
        q, k = (projection(inputs["hidden_states"])[0].unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
                for projection in (attention.q_proj, attention.k_proj))
        plan.append(two_norm_pairs(q, k, rope_pairs))

    hooks = [layer.self_attn.register_forward_pre_hook(record, with_kwargs=True) for layer in model.model.layers]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return plan


@torch.no_grad()
def tiny_case(source, tokens, name, conversion):
    model = copy.deepcopy(source)
    layers = convert(model, conversion)
    logits = model(tokens).logits[0, POSITIONS]
    return {"name": name, **asdict(conversion), "layers": layers, "logits": [floats(row) for row in logits.tolist()]}


def make_tiny():
    directory = ROOT / "tests/fixtures/models/tiny-gqa"
    source = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = json.loads((directory / "expected.json").read_text())["tokens"]
    tokens = torch.tensor([ids])
    cases = [tiny_case(source, tokens, name, conversion) for name, conversion in TINY.items()]
    write_json(ROOT / "tests/fixtures/convert/tiny-gqa.json", {
        "model": "tiny-gqa", "tokens": ids, "positions": POSITIONS,
        "two_norm": {"rope_pairs": 2, "pairs": two_norm_plan(source, tokens, 2)}, "cases": cases})


def smollm2_case(gguf_path, windows, name, conversion):
    from smollm2 import load_model, round_weights
    from make_perplexity_fixtures import window_nll

    model = load_model(gguf_path, weights=torch.float32)
    layers = convert(model, conversion, store=torch.bfloat16)
    round_rest = [] if conversion.factor == "none" else ["k_proj", "v_proj"]
    round_weights(model, torch.bfloat16, skip=round_rest)
    nll = [window_nll(model, windows, index) for index in range(4)]
    perplexity = math.exp(sum(nll) / len(nll))
    print(f"{name}: {perplexity:.1f}", flush=True)
    energy = {key: round(sum(layer[key] for layer in layers) / len(layers), 6) for key in ("key_energy", "value_energy")}
    return {"name": name, **asdict(conversion), "pairs": layers[0]["pairs"], "mean_energy": energy,
            "perplexity": round(perplexity, 3), "window_nll": [round(x, 7) for x in nll]}


def make_smollm2(gguf_path, tokenizer_path, text_path):
    from tokenizers import Tokenizer
    from make_perplexity_fixtures import read_tokens

    tokens = read_tokens(Tokenizer.from_file(tokenizer_path), text_path)
    cases = [smollm2_case(gguf_path, tokens, name, conversion) for name, conversion in SMOLLM2.items()]
    write_json(ROOT / "tests/fixtures/convert/smollm2.json", {
        "model": Path(gguf_path).name, "text": Path(text_path).name, "window": 1024, "first": 0, "windows": 4,
        "cases": cases})


def main():
    make_tiny()
    if len(sys.argv) > 1:
        make_smollm2(*sys.argv[1:4])


if __name__ == "__main__":
    main()
