"""Writes tests/fixtures/tokenizer: what Hugging Face's `tokenizers` makes of real texts and small vocabularies.

Needs `tokenizers`; the digests need the data folder too:
    python tools/make_tokenizer_fixtures.py ../shared/data
"""

import argparse
import json
import random
import struct
import unicodedata
from pathlib import Path

from fixture_io import write_json
from tokenizers import Tokenizer

TARGET = Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizer"
TOKENIZERS = ["smollm2", "gpt2", "llama2", "minimind"]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def split_by(pattern):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, dict(BYTE_LEVEL, use_regex=False)]}


PRE_TOKENIZERS = {
    "gpt2": BYTE_LEVEL,
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
    "llama3": split_by(LLAMA3),
    "qwen2": split_by(QWEN2),
    "line ends": split_by(r"[\r\n]|\s?\p{L}+|\s+$|"),
}
# Joined at random: what regular expressions, byte fallback and normalization are likely to get wrong.
BITS = ["the", "Hello", " ", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'\u017f", "1234", "\u0663", "\u2167", ".",
        "!?", "caf\u00e9", "e\u0301", "\u4f60\u597d", "\U0001f999", "\u180e", "\u3000", "\u00a0", "\u0085", "\u200b",
        "\ud55c", "\u0e01\u0e49", "_", "-", "x", "\u0000", "\u00bd", "\u0130", "<a>", "<b>", "<bb>", "<w>", "ab", "ba"]


def random_texts(seed, count):
    generator = random.Random(seed)
    return ["".join(generator.choices(BITS, k=generator.randint(1, 12))) for _ in range(count)]


def digest(ids):
    """FNV-1a, 64 bit, over the ids as little-endian 32 bit integers."""
    value = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def write_digests(data):
    content = {}
    for name in TOKENIZERS:
        tokenizer = Tokenizer.from_file(str(data / f"tokenizers/{name}-tokenizer.json"))
        content[name] = {}
        for path in sorted((data / "text").iterdir()):
            ids = tokenizer.encode(path.read_bytes().decode("utf-8"), add_special_tokens=False).ids
            content[name][path.name] = {"count": len(ids), "digest": digest(ids)}
    write_json(TARGET / "digests.json", content)


def tokenizer_json(model, **parts):
    keys = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return {**keys, **parts, "model": model}


def bpe(tokens, merges, **options):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return {**model, **options, "vocab": vocab, "merges": merges}


def byte_alphabet():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in visible] + [chr(256 + index) for index in range(256 - len(visible))]


def added(model, tokens):
    """The tokens with their flags, numbered as the library does: as in the vocabulary, then on behind it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    unknown = [content for content in tokens if content not in model["vocab"]]
    ids = {**model["vocab"], **{content: len(model["vocab"]) + index for index, content in enumerate(unknown)}}
    return [{"id": ids[content], "content": content, **flags, **own} for content, own in tokens.items()]


WORD_MERGES = ["h e", "he l", "l o", "hel lo", "\u0120 t", "t he", "\u0120t he", "a b", "b a", "ab a", "1 2", "12 3"]


def byte_level_words(**options):
    return bpe(byte_alphabet() + [merge.replace(" ", "") for merge in WORD_MERGES], WORD_MERGES, **options)


def fallback_words(*more_merges, **options):
    merges = ["\u2581 t", "h e", "\u2581t he", "\u2581 \u2581", "a b", "b a", "ab ab", "l l", "he ll", "hell o",
              *more_merges]
    letters = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + list("\u2581thelabo'1.")
    return bpe(letters + [merge.replace(" ", "") for merge in merges], [merge.split(" ") for merge in merges],
               unk_token="<unk>", fuse_unk=True, **options)


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def replace(pattern, content):
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


SPACE_MARKS = {"type": "Sequence",
               "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace(" ", "\u2581")]}


def fallback_json(model, **parts):
    """As Llama-2's file has it."""
    decoder = {"type": "Sequence", "decoders": [
        replace("\u2581", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    tokens = added(model, {"<unk>": {"special": True}, "<s>": {"special": True, "normalized": True},
                           "<a>": {"normalized": True}, "<b>": {"lstrip": True}})
    return tokenizer_json(model, added_tokens=tokens, decoder=decoder, **parts)


def byte_level_json(model=None, pre_tokenizer=BYTE_LEVEL, **parts):
    return tokenizer_json(model or byte_level_words(), pre_tokenizer=pre_tokenizer, decoder=BYTE_LEVEL, **parts)


def small_tokenizers():
    tokens = added(byte_level_words(), {
        "<a>": {"lstrip": True}, "<b>": {"rstrip": True}, "<bb>": {"special": True}, "<w>": {"single_word": True},
        "ab": {"normalized": True, "single_word": True}, "<a><b>": {"special": True, "lstrip": True, "rstrip": True}})
    return {
        "byte level": byte_level_json(),
        "added tokens": byte_level_json(added_tokens=tokens),
        "prefix space": byte_level_json(pre_tokenizer=dict(BYTE_LEVEL, add_prefix_space=True), added_tokens=tokens),
        "ignore merges": byte_level_json(model=byte_level_words(ignore_merges=True), pre_tokenizer=split_by(LLAMA3)),
        "composed": byte_level_json(normalizer={"type": "NFC"}, pre_tokenizer=split_by(QWEN2)),
        "byte fallback": fallback_json(fallback_words(byte_fallback=True), normalizer=SPACE_MARKS),
        "merges across spaces": fallback_json(fallback_words("o \u2581", "b \u2581", byte_fallback=True),
                                              normalizer=SPACE_MARKS),
        "unknown": fallback_json(fallback_words(), normalizer=SPACE_MARKS),
        "metaspace first": fallback_json(fallback_words(byte_fallback=True), pre_tokenizer=metaspace("first", False)),
        "metaspace words": fallback_json(fallback_words(byte_fallback=True), pre_tokenizer=metaspace("always", True)),
    }


def write_small_tokenizers():
    content = {}
    for seed, (name, description) in enumerate(small_tokenizers().items()):
        tokenizer = Tokenizer.from_str(json.dumps(description))
        texts = ["", "the hello", "  ababab aba", "<s>the<a> <b>  ab", *random_texts(seed, 40)]
        cases = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in texts]
        tokenizer.encode_special_tokens = True
        for case in cases:
            case["ids_of_plain_text"] = tokenizer.encode(case["text"], add_special_tokens=False).ids
        content[name] = {"tokenizer": description, "cases": cases}
    write_json(TARGET / "small_tokenizers.json", content)


def write_splits():
    content = {}
    for seed, (name, rules) in enumerate(PRE_TOKENIZERS.items()):
        splitter = Tokenizer.from_str(json.dumps(byte_level_json(pre_tokenizer=rules))).pre_tokenizer
        texts = ["I'M you'Ll we've 12345 \n\n  x", *random_texts(100 + seed, 60)]
        cases = [[text, [word for word, _ in splitter.pre_tokenize_str(text)]] for text in texts]
        content[name] = {"pre_tokenizer": rules, "cases": cases}
    write_json(TARGET / "splits.json", content)


def write_normal_forms():
    """Every code point that form C changes (behind a letter and a mark), and marks and syllables at random."""
    generator = random.Random(1)
    affected = [chr(code) for code in range(0x110000)
                if not 0xD800 <= code < 0xE000 and (unicodedata.combining(chr(code))
                                                    or unicodedata.normalize("NFC", chr(code)) != chr(code))]
    pool = affected + [chr(code) for code in range(0x1100, 0x1200)] + list("aeou\u0439\u0915\u09c7\uac00\uac01") * 40
    texts = ["".join(generator.choices(pool, k=6)) for _ in range(300)]
    texts += ["".join(affected[begin:begin + 64]) for begin in range(0, len(affected), 64)]
    write_json(TARGET / "normal_forms.json",
               {"cases": [[text, unicodedata.normalize("NFC", text)] for text in texts]})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="the data folder; without it the digests stay as they are")
    arguments = parser.parse_args()
    write_splits()
    write_small_tokenizers()
    write_normal_forms()
    if arguments.data:
        write_digests(arguments.data)


if __name__ == "__main__":
    main()
