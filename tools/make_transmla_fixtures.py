#!/usr/bin/env python3
"""Makes tests/fixtures/convert/transmla.json: what the public TransMLA code makes of the first layer of two tiny models.

Needs torch, transformers 5 and a clone of github.com/fxmeng/TransMLA (made with commit 9c0d254). Usage:
    make_transmla_fixtures.py TRANSMLA_CLONE

Inputs are random and serve as calibration and as the sequence whose attention outputs are recorded, in fp64.
"""

import copy
import sys
import types
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from fixture_io import floats, write_json

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 48
POSITIONS = [0, 5, 30, 47]
# name, model, components C (qk_mqa_dim = 2 C), freqfold, kv_lora_rank, balance_kv_ratio
CASES = [
    ("rotates all frequencies once", "tiny-gqa", 8, 1, 20, 1.0),
    ("folds two of them", "tiny-gqa", 8, 2, 20, 1.0),
    ("folds all of them", "tiny-gqa", 8, 8, 20, 1.0),
    ("rotates every fourth", "tiny-gqa", 2, 4, 24, 1.0),
    ("rotates every fourth, folds all", "tiny-gqa", 2, 8, 24, 0.5),
    ("full rank", "tiny-gqa", 4, 4, 56, 1.0),
    ("biases", "tiny-bias", 4, 4, 20, 1.0),
]


def import_transmla(clone):
    """The code's modules import each other by bare names, and `datasets`, which nothing here uses."""
    datasets = types.ModuleType("datasets")
    datasets.DatasetDict = datasets.Dataset = object
    sys.modules["datasets"] = datasets
    sys.path.insert(0, str(Path(clone) / "transmla" / "transmla"))
    from lora_qkv import LoraQKV
    from partial_rope import PartialRope

    return PartialRope, LoraQKV


@torch.no_grad()
def run_case(model, inputs, case, modules):
    partial_rope, lora_qkv = modules
    name, model_name, components, freqfold, rank, balance = case
    attention = copy.deepcopy(model.model.layers[0].self_attn)
    collapse = attention.head_dim // (2 * components)
    x = inputs.unsqueeze(0)
    rotated = partial_rope(attention, [attention.k_proj(x)], freqfold=freqfold, collapse=collapse)
    latent = lora_qkv(
        rotated, None, [rotated.k_proj(x)], [rotated.v_proj(x)], qk_mqa_dim=2 * components, collapse=collapse,
        kv_lora_rank=rank, balance_kv_ratio=balance,
    )
    embeddings = model.model.rotary_emb(x, torch.arange(TOKENS).unsqueeze(0))
    output = latent(x, position_embeddings=embeddings)[0][0, POSITIONS]
    return {"name": name, "model": model_name, "components": components, "freqfold": freqfold, "rank": rank,
            "balance": balance, "output": [floats(row) for row in output.tolist()]}


def main(clone):
    modules = import_transmla(clone)
    torch.manual_seed(5)
    models, inputs = {}, {}
    for name in sorted({case[1] for case in CASES}):
        models[name] = LlamaForCausalLM.from_pretrained(
            ROOT / "tests/fixtures/models" / name, dtype=torch.float64, attn_implementation="sdpa")
        width = models[name].config.hidden_size
        spread = torch.randn(width, width, dtype=torch.float64) / width**0.5
        inputs[name] = torch.randn(TOKENS, width, dtype=torch.float64) @ spread + 0.5 * torch.randn(width)
        inputs[name] = inputs[name].float().double()
    write_json(ROOT / "tests/fixtures/convert/transmla.json", {
        "positions": POSITIONS,
        "inputs": {name: [floats(row) for row in x.tolist()] for name, x in inputs.items()},
        **{"cases": [run_case(models[case[1]], inputs[case[1]], case, modules) for case in CASES]},
    })


if __name__ == "__main__":
    main(sys.argv[1])
