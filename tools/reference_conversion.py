"""The published conversion (arXiv 2502.14837) in plain torch: partial RoPE, then joint or split SVD of keys and values.

The oracle of the C++ conversion. A converted model is written in expanded form: the source model whose un-rotated key
rows and value rows are products of low-rank factors, and whose RoPE leaves all but the chosen pairs alone. That equals
attention from the latent, without a cache.

H query heads, G key/value heads, d head width, P = d/2 rotary pairs (pair i = dims i and i + P), R latent width.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Conversion:
    select: str = "uniform"  # high | low | uniform
    rope_pairs: int = 4  # r, kept per KV head
    factor: str = "joint-svd"  # joint-svd | split-svd | none
    kv_rank: int = 0  # d_kv per KV head: R = d_kv * G
    split_full_rank: bool = False  # split-svd: R for keys and R for values instead of R/2 each


def select_pairs(select, rope_pairs, pairs):
    """Section 3.1 of the paper."""
    if select == "uniform":
        return list(range(0, pairs, pairs // rope_pairs))[:rope_pairs]
    return {"high": list(range(rope_pairs)), "low": list(range(pairs - rope_pairs, pairs))}[select]


def two_norm_pairs(q_HTd, k_GTd, rope_pairs):
    """Section 3.1, S_2-norm: the pairs of each KV head with the largest products of mean query and key norms."""
    def mean_norms(x):
        half = x.shape[-1] // 2
        return (x[..., :half] ** 2 + x[..., half:] ** 2).sqrt().mean(1)

    keys = mean_norms(k_GTd)
    queries = mean_norms(q_HTd).reshape(keys.shape[0], -1, keys.shape[1]).sum(1)
    return [sorted(row.topk(rope_pairs).indices.tolist()) for row in keys * queries]


def truncated_svd(weight, rank):
    """weight ~ up @ down with orthonormal rows of down."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * s[:rank], vh[:rank]


def factorize(key, value, conversion, latent):
    """Section 3.2. Approximations of the un-rotated key rows and of the value rows, as (up, down) each."""
    if conversion.factor == "joint-svd":
        up, down = truncated_svd(torch.cat([key, value]), latent)
        return (up[:len(key)], down), (up[len(key):], down)
    rank = latent if conversion.split_full_rank else latent // 2
    return truncated_svd(key, rank), truncated_svd(value, rank)


class PartialRopeAttention(nn.Module):
    """Llama's attention in which only the chosen pairs of each KV head, and of its query heads, are rotated."""

    def __init__(self, source, pairs_G):
        super().__init__()
        self.head_dim = source.head_dim
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = source.q_proj, source.k_proj, source.v_proj, source.o_proj
        rotated = torch.zeros(len(pairs_G), 1, self.head_dim, dtype=torch.bool)  # [G, 1, d]
        for head, pairs in enumerate(pairs_G):
            rotated[head, 0, pairs] = True
            rotated[head, 0, [pair + self.head_dim // 2 for pair in pairs]] = True
        self.rotated = rotated

    def rotate(self, x, cos, sin):
        half = self.head_dim // 2
        turned = x * cos[:, None] + torch.cat([-x[..., half:], x[..., :half]], -1) * sin[:, None]
        mask = self.rotated.repeat_interleave(x.shape[1] // len(self.rotated), 0)
        return torch.where(mask, turned, x)

    def forward(self, hidden_states, position_embeddings, **_):
        batch, tokens, _ = hidden_states.shape

        def heads(projection):
            return projection(hidden_states).view(batch, tokens, -1, self.head_dim).transpose(1, 2)

        q, k, v = heads(self.q_proj), heads(self.k_proj), heads(self.v_proj)
        q, k = self.rotate(q, *position_embeddings), self.rotate(k, *position_embeddings)
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1)), None


def energy(approximation, weight):
    """Share of ||weight||^2 that is reproduced."""
    return round(1 - ((approximation - weight).norm() / weight.norm()).item() ** 2, 6)


@torch.no_grad()
def convert_layer(attention, conversion, store):
    """Returns the converted attention and a record of it. `store` is the dtype that factors are rounded to."""
    d = attention.head_dim
    kv_heads = attention.k_proj.weight.shape[0] // d
    pairs = select_pairs(conversion.select, conversion.rope_pairs, d // 2)
    converted = PartialRopeAttention(attention, [pairs] * kv_heads)
    record = {"pairs": [pairs] * kv_heads, "key_energy": 1.0, "value_energy": 1.0}
    if conversion.factor != "none":
        key_weight, value_weight = attention.k_proj.weight, attention.v_proj.weight
        unrotated = ~converted.rotated.flatten()
        key, value = key_weight[unrotated].clone(), value_weight.clone()
        factors = factorize(key, value, conversion, conversion.kv_rank * kv_heads)
        new_key, new_value = (up.to(store).float() @ down.to(store).float() for up, down in factors)
        record |= {"key_energy": energy(new_key, key), "value_energy": energy(new_value, value)}
        key_weight[unrotated], value_weight[:] = new_key, new_value
    return converted, record


def convert(model, conversion, store=torch.float32):
    """Converts a LlamaForCausalLM in place; returns a record per layer."""
    records = []
    for layer in model.model.layers:
        layer.self_attn, record = convert_layer(layer.self_attn, conversion, store)
        records.append(record)
    return records
