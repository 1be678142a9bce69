#!/usr/bin/env python3
"""Makes tests/fixtures/gguf: blocks of every GGUF type that we read, with the floats that the gguf package makes of them.

Needs gguf and numpy. The codes are random bytes; scales and minima are random halves of sane size.
"""

from pathlib import Path

import numpy as np
from fixture_io import write_json
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/gguf"
BLOCKS = 2
ROW_ELEMENTS = 16  # of the types whose blocks are single elements
# Byte offsets of the F16 scales and minima in a block.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
PLAIN = ["F32", "F16", "BF16"]


def random_blocks(rng, name, block_bytes):
    blocks = rng.integers(0, 256, (BLOCKS, block_bytes), dtype=np.uint8)
    for offset in HALVES[name]:
        halves = rng.uniform(-0.1, 0.1, BLOCKS).astype(np.float16)
        blocks[:, offset : offset + 2] = halves.reshape(-1, 1).view(np.uint8)
    return blocks.reshape(-1)


def random_numbers(rng, name):
    """Numbers in F32, F16 or BF16, a subnormal half and both zeros among them."""
    values = np.concatenate([rng.normal(size=ROW_ELEMENTS - 3), [0.0, -0.0, 1e-7]]).astype(np.float32)
    return quants.quantize(values, GGMLQuantizationType[name]).view(np.uint8).reshape(-1)


def case(rng, name):
    kind = GGMLQuantizationType[name]
    _, block_bytes = GGML_QUANT_SIZES[kind]
    raw = random_numbers(rng, name) if name in PLAIN else random_blocks(rng, name, block_bytes)
    floats = quants.dequantize(raw, kind).astype(np.float32).reshape(-1)
    return {"id": int(kind), "raw": raw.tobytes().hex(), "floats": floats.astype("<f4").tobytes().hex()}


def main():
    rng = np.random.default_rng(20)
    write_json(OUT / "blocks.json", {name: case(rng, name) for name in [*PLAIN, *HALVES]})


if __name__ == "__main__":
    main()
