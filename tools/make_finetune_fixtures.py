#!/usr/bin/env python3
"""Makes tests/fixtures/finetune/steps.json: 50 steps of a PyTorch training loop on a tiny model, in fp64.

Needs torch and transformers 5. The loop is the usual one: cross-entropy of the next token, gradients clipped at norm 1,
torch.optim.AdamW (0.9, 0.95), linear warm-up, constant rate, 1 - sqrt decay. The windows are random and their order is
that of the file, which has one batch a line: the test gives our trainer the same batches.
"""

import math
import random
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from fixture_io import floats, write_json

ROOT = Path(__file__).resolve().parent.parent
STEPS, BATCH, TOKENS = 50, 2, 24
RATE, WARMUP, COOLDOWN = 3e-3, 0.1, 0.5


def learning_rate(step):
    warmup = math.ceil(WARMUP * STEPS)
    if step < warmup:
        return RATE * (step + 1) / warmup
    done = (step - warmup) / (STEPS - warmup)
    begin = 1 - COOLDOWN
    return RATE * (1 if done <= begin else 1 - math.sqrt((done - begin) / COOLDOWN))


def train(model, windows):
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    losses, norms = [], []
    for step in range(STEPS):
        ids = torch.tensor(windows[BATCH * step:BATCH * (step + 1)])
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def main():
    random.seed(5)
    torch.set_default_dtype(torch.float64)
    model = LlamaForCausalLM.from_pretrained(ROOT / "tests/fixtures/models/tiny-gqa", dtype=torch.float64,
                                             attn_implementation="eager")
    windows = [[random.randrange(model.config.vocab_size) for _ in range(TOKENS)] for _ in range(STEPS * BATCH)]
    losses, norms = train(model, windows)
    write_json(ROOT / "tests/fixtures/finetune/steps.json",
               {"model": "tiny-gqa", "batch": BATCH, "learning_rate": RATE, "warmup": WARMUP, "cooldown": COOLDOWN,
                "weight_decay": 0.1, "windows": windows, "losses": floats(losses), "gradient_norms": floats(norms)})


if __name__ == "__main__":
    main()
