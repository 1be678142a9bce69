#!/usr/bin/env python3
"""Makes the model files of a comparison with llama.cpp. Runs in the environment that tools/llama_cpp_setup.py makes.

    llama_cpp_files.py quantize SOURCE.gguf TARGET.gguf bf16|q8_0|q4_1     the same weights, stored as another type
    llama_cpp_files.py wide llama2-7b|llama3-8b TARGET.gguf                random weights, attention as wide as theirs
"""

import sys

import numpy as np

HEAD_DIM, LAYERS, CONTEXT = 128, 2, 65536
GGML_TYPE_BF16 = 30  # ggml.h; the bindings lack it
VOCABULARY, FFN = 512, 256  # small: attention is what is timed
WIDE = {"llama2-7b": (32, 32, 10000.0), "llama3-8b": (32, 8, 500000.0)}  # heads, key/value heads, RoPE base


def quantize(source, target, kind):
    import llama_cpp  # loads the library: only here
    types = {"bf16": (llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, GGML_TYPE_BF16),
             "q8_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, llama_cpp.GGML_TYPE_Q8_0),
             "q4_1": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1, llama_cpp.GGML_TYPE_Q4_1)}
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, matrix_type = types[kind]
    parameters.allow_requantize = True
    # As ours has it: the embedding in eight bits beside weights of four.
    parameters.token_embedding_type = llama_cpp.GGML_TYPE_Q8_0 if kind == "q4_1" else matrix_type
    parameters.output_tensor_type = parameters.token_embedding_type
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters) != 0:
        sys.exit(f"error: {source}: llama_model_quantize to {kind} failed")


def layer_shapes(layer, heads, kv_heads):
    hidden = heads * HEAD_DIM
    shapes = {"attn_q": (hidden, hidden), "attn_k": (kv_heads * HEAD_DIM, hidden), "attn_v": (kv_heads * HEAD_DIM, hidden),
              "attn_output": (hidden, hidden), "ffn_gate": (FFN, hidden), "ffn_up": (FFN, hidden),
              "ffn_down": (hidden, FFN), "attn_norm": (hidden,), "ffn_norm": (hidden,)}
    return {f"blk.{layer}.{name}.weight": shape for name, shape in shapes.items()}


def bf16_bytes(values):
    """The upper halves, as bytes [rows, 2 * columns]: cut off, the weights are random anyway."""
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype("<u2").view(np.uint8)


def add_vocabulary(writer):
    """The smallest one that both programs accept: sentencepiece with the bytes."""
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    names += [f"t{index}" for index in range(len(names), VOCABULARY)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259))  # unknown, control, byte, normal
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def add_shape(writer, heads, kv_heads, rope_base):
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(heads * HEAD_DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(rope_base)
    writer.add_vocab_size(VOCABULARY)


def wide(shape, target):
    import gguf
    heads, kv_heads, rope_base = WIDE[shape]
    hidden = heads * HEAD_DIM
    writer = gguf.GGUFWriter(target, "llama")
    add_shape(writer, heads, kv_heads, rope_base)
    add_vocabulary(writer)
    random = np.random.default_rng(5)
    shapes = {"token_embd.weight": (VOCABULARY, hidden), "output.weight": (VOCABULARY, hidden),
              "output_norm.weight": (hidden,)}
    for layer in range(LAYERS):
        shapes |= layer_shapes(layer, heads, kv_heads)
    for name, size in shapes.items():
        if len(size) == 1:
            writer.add_tensor(name, np.ones(size, np.float32))
        else:
            values = random.standard_normal(size, dtype=np.float32) / np.float32(size[1] ** 0.5)
            writer.add_tensor(name, bf16_bytes(values), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    makers = {"quantize": quantize, "wide": wide}
    if len(sys.argv) < 4 or sys.argv[1] not in makers:
        sys.exit(__doc__)
    makers[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
