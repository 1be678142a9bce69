#!/usr/bin/env python3
"""Makes a model of an 8B model's width and few layers, with random weights: what a conversion needs of memory and time does not
ask what the weights are. Sharded safetensors in bf16, one layer a shard; memory holds one tensor.

Usage: make_wide_model.py OUT TOKENIZER.json [LAYERS]     (4 layers: 2.3 GB; the tokenizer's ids must lie below 32,000)
Needs numpy.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCABULARY = 4096, 32, 8, 128, 14336, 32000
ROWS_AT_A_TIME = 1024


def config(layers):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "head_dim": HEAD_DIM,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "intermediate_size": FFN,
            "num_hidden_layers": layers, "vocab_size": VOCABULARY, "max_position_embeddings": 8192, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False,
            "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}


def layer_shapes(layer):
    shapes = {"self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
              "self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
              "mlp.gate_proj.weight": (FFN, HIDDEN), "mlp.up_proj.weight": (FFN, HIDDEN), "mlp.down_proj.weight": (HIDDEN, FFN),
              "input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
    return {f"model.layers.{layer}.{name}": shape for name, shape in shapes.items()}


def bf16(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()  # cut off: random anyway


def tensor_bytes(shape, random):
    """Norms are ones; rows of a matrix keep the length of a random input."""
    if len(shape) == 1:
        yield bf16(np.ones(shape))
        return
    for row in range(0, shape[0], ROWS_AT_A_TIME):
        rows = min(ROWS_AT_A_TIME, shape[0] - row)
        yield bf16(random.standard_normal((rows, shape[1]), dtype=np.float32) / np.sqrt(shape[1]))


def write_shard(path, shapes, random):
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            for part in tensor_bytes(shape, random):
                file.write(part)


def main():
    out, tokenizer = Path(sys.argv[1]), sys.argv[2]
    layers = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    random = np.random.default_rng(8)
    out.mkdir(parents=True)
    ends = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
            "lm_head.weight": (VOCABULARY, HIDDEN)}
    shards = [ends, *(layer_shapes(layer) for layer in range(layers))]
    places = {}
    for number, shapes in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(out / name, shapes, random)
        places.update({tensor: name for tensor in shapes})
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=1))
    (out / "config.json").write_text(json.dumps(config(layers), indent=1))
    shutil.copyfile(tokenizer, out / "tokenizer.json")


if __name__ == "__main__":
    main()
