#!/usr/bin/env python3
"""Makes tests/fixtures/models: tiny random Llama models and the logits that transformers computes for them in fp32.

Needs torch and transformers 5. Usage: make_tiny_models.py [OUT]   (default: tests/fixtures/models)

Config files come in both styles met in the wild: "legacy" (rope_theta, rope_scaling and torch_dtype at top level) and
"current" (transformers 5: rope_parameters, dtype). The logits are those of the model as loaded again from disk.
"""

import copy
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fixture_io import floats, write_json

TOKENS = 48
EVERY = 4  # logits of every 4th position are kept, the last among them
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # 32: of the 8 pairs one is kept, one is interpolated between, six are slowed down by `factor`
    "original_max_position_embeddings": 32,
}


@dataclass
class Spec:
    seed: int
    kv_heads: int
    legacy: bool
    dtype: torch.dtype = torch.float32
    bf16_exact: bool = False  # every weight is a bf16 number: a runtime with bf16 weights loses nothing at load
    rope: dict = field(default_factory=lambda: {"rope_type": "default"})
    sizes: dict = field(default_factory=dict)


SPECS = {
    # head_dim = hidden_size / heads = 8; in all others it is 16 and differs from hidden_size / heads
    "tiny-mha": Spec(1, kv_heads=4, legacy=True, sizes={"head_dim": 8}),
    "tiny-gqa": Spec(2, kv_heads=2, legacy=False, bf16_exact=True),
    "tiny-gqa-tied": Spec(3, kv_heads=2, legacy=True, bf16_exact=True, dtype=torch.bfloat16,
                          sizes={"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "tiny-llama3": Spec(4, kv_heads=2, legacy=True, rope=LLAMA3, sizes={"rms_norm_eps": 1e-5}),
    "tiny-bias": Spec(5, kv_heads=2, legacy=False, bf16_exact=True, dtype=torch.float16,
                      sizes={"attention_bias": True}),
}


def make_config(spec):
    sizes = dict(hidden_size=32, head_dim=16, intermediate_size=64, vocab_size=128, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=spec.kv_heads, max_position_embeddings=128,
                 rms_norm_eps=1e-6, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    return LlamaConfig(**{**sizes, **spec.sizes}, rope_parameters={"rope_theta": 10000.0, **spec.rope})


@torch.no_grad()
def randomize(model, spec):
    """Weights of 0.25 make attention and logits far from uniform; norms lie around 1."""
    generator = torch.Generator().manual_seed(spec.seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        value = 1 + 0.2 * noise if "norm" in name else 0.25 * noise
        if spec.bf16_exact:
            value = value.bfloat16().half().bfloat16().float()  # a number of both 16-bit formats
        parameter.copy_(value)


def write_legacy_config(path):
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    if config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]:
        del config["head_dim"]  # older files leave it to the reader
    config["transformers_version"] = "4.45.0"
    path.write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def expected(directory, spec, original):
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.randint(3, 128, (1, TOKENS), generator=torch.Generator().manual_seed(100 + spec.seed))
    out = model(tokens, output_attentions=True)
    torch.testing.assert_close(out.logits, original(tokens).logits)  # the config file says all that matters
    positions = list(range(EVERY - 1, TOKENS, EVERY))
    peak = torch.stack([layer[0, :, -1].max(-1).values for layer in out.attentions]).mean()
    print(f"{directory.name}: logits std {out.logits.std():.2f}, mean peak of attention {peak:.2f}")
    logits = [floats(out.logits[0, position].tolist()) for position in positions]
    return {"tokens": tokens[0].tolist(), "positions": positions, "logits": logits}


def make_model(directory, spec):
    model = LlamaForCausalLM(make_config(spec))
    randomize(model, spec)
    copy.deepcopy(model).to(spec.dtype).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    (directory / "model.safetensors").chmod(0o644)
    if spec.legacy:
        write_legacy_config(directory / "config.json")
    write_json(directory / "expected.json", expected(directory, spec, model.eval()))


def main():
    root = Path(__file__).resolve().parent.parent
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/fixtures/models"
    for name, spec in SPECS.items():
        make_model(out / name, spec)


if __name__ == "__main__":
    main()
