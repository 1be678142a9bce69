#!/usr/bin/env python3
"""The usual way to fine-tune a model of SmolLM2-135M's shape, to compare `mha2mla finetune` with: transformers and torch.

    finetune_reference.py [--steps 4] [--threads 2] [--autocast]

Full fine-tuning on cross-entropy: fp32 weights, AdamW, windows of 512 tokens, 2 a step; --autocast computes products in
bf16. Random weights and tokens: they change no time. Needs torch and transformers. Prints tokens per second (the median
of the steps but the first) and the most memory that the process held, as JSON.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

WINDOW, WINDOWS = 512, 2
SMOLLM2 = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
           "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "rope_theta": 100000.0}


def step(model, optimizer, autocast):
    ids = torch.randint(SMOLLM2["vocab_size"], (WINDOWS, WINDOW))
    start = time.perf_counter()
    for window in ids.split(1):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(input_ids=window, labels=window).loss / WINDOWS
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autocast", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = LlamaForCausalLM(LlamaConfig(**SMOLLM2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    seconds = [step(model, optimizer, options.autocast) for _ in range(options.steps)]
    print(json.dumps({"tokens_per_second": WINDOW * WINDOWS / statistics.median(seconds[1:]), "seconds": seconds,
                      "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


if __name__ == "__main__":
    main()
