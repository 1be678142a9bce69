#!/usr/bin/env python3
"""Makes tests/fixtures/models/tiny-text: a random Llama model with a byte-level tokenizer, for tests of the command line.

Needs torch, transformers and tokenizers. Usage: make_tiny_text_model.py [OUT]
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 272  # 256 bytes, 2 special tokens, a few merges
TEXT = ["the cat sat on the mat and the hen ran to the den"] * 4


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|endoftext|>", "<|im_start|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def make_model():
    torch.manual_seed(6)
    config = LlamaConfig(hidden_size=32, head_dim=16, intermediate_size=64, vocab_size=VOCABULARY, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                         initializer_range=0.2, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0)
    return LlamaForCausalLM(config).to(torch.bfloat16)


def main():
    root = Path(__file__).resolve().parent.parent
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/fixtures/models/tiny-text"
    make_model().save_pretrained(out)
    make_tokenizer().save(str(out / "tokenizer.json"), pretty=False)


if __name__ == "__main__":
    main()
