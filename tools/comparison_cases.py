"""What tools/compare_llama_cpp.py measures, and the ratios that are aimed at."""

from dataclasses import asdict, dataclass, replace

WEIGHTS = ("bf16", "int8", "int4")
PEER_WEIGHTS = {"bf16": "bf16", "int8": "q8_0", "int4": "q4_1"}
WORKS = ("decode", "prefill", "batch", "attention", "memory")
WIDE = {"llama2-7b": ("--rope-pairs", "8", "--cache-ratio", "0.3125"),    # latent 2,048, rotary 512
        "llama3-8b": ("--rope-pairs", "4", "--cache-ratio", "0.28125")}   # latent 512, rotary 64
IN_GROUPS = "in 8 latent groups"  # a third side: the same cache, of which a head reads an eighth
GROUPED = {"llama2-7b": (*WIDE["llama2-7b"], "--latent-groups", "8")}


@dataclass(frozen=True)
class Group:
    """Measurements that take turns: ours of the source model, ours of its conversions, llama.cpp's of the source."""
    work: str
    weights: str
    depth: int            # tokens in the cache before
    tokens: int           # of the test: prefilled, or decoded by each sequence
    sequences: int = 1
    model: str = "default"
    ours: tuple = ("source", "converted")
    rounds: int = 5
    repetitions: int = 3  # within a round, on both sides; the median counts
    source: str = ""      # file of the default model
    threads: int = 2
    kv_cache: str = "int4-c"  # of converted models

    def key(self):
        """What a measurement of it depends on, as it stands in the rows; how often it is made does not belong to it."""
        return {name: value for name, value in asdict(self).items() if name not in ("ours", "rounds")}

    def text(self):
        what = {"prefill": f"prefill {self.tokens:,} tokens", "batch": f"decode, {self.sequences} sequences at once",
                "attention": f"time of attention a layer, {self.model} shape",
                "memory": "resident memory of the process"}.get(self.work, self.work)
        return what if self.work == "prefill" else f"{what}, depth {self.depth:,}"


@dataclass(frozen=True)
class Setup:
    """What the whole comparison has in common."""
    source: str
    threads: int = 2
    kv_cache: str = "int4-c"


@dataclass(frozen=True)
class Sizes:
    """How large the tests are; QUICK only proves that everything runs."""
    depths: tuple = (0, 2048, 4096, 8192)
    long_depth: int = 32768
    prefills: tuple = (512, 2048)
    decoded: int = 64
    batch_depth: int = 2048
    wide_depth: int = 16384
    memory_depth: int = 8128
    trial_depth: int = 4096
    rounds: int = 5
    repetitions: int = 3


FULL = Sizes()
QUICK = Sizes(depths=(0, 256), long_depth=320, prefills=(64,), decoded=8, batch_depth=64, wide_depth=256, memory_depth=192,
              trial_depth=64, rounds=2, repetitions=1)


def decode_groups(sizes):
    groups = [Group("decode", weights, depth, sizes.decoded) for weights in WEIGHTS for depth in sizes.depths]
    return groups + [Group("decode", "int8", sizes.long_depth, sizes.decoded, ours=("converted",))]


def attention_groups(sizes):
    def sides(shape):
        return ("source", "converted") + ((IN_GROUPS,) if shape in GROUPED else ())

    return [Group("attention", "bf16", sizes.wide_depth, sizes.decoded // 4, model=shape, ours=sides(shape)) for shape in WIDE]


def all_groups(sizes, setup):
    groups = decode_groups(sizes)
    groups += [Group("prefill", weights, 0, tokens) for weights in WEIGHTS for tokens in sizes.prefills]
    groups += [Group("batch", "int8", sizes.batch_depth, sizes.decoded, sequences=8)]
    groups += attention_groups(sizes)
    groups += [Group("memory", weights, sizes.memory_depth, sizes.decoded) for weights in WEIGHTS]
    # What memory a process takes does not change from run to run.
    return [replace(group, rounds=1 if group.work == "memory" else sizes.rounds, repetitions=sizes.repetitions,
                    **asdict(setup)) for group in groups]


def target(group, side):
    """The ratio that is aimed at, or None: ours / llama.cpp in speed (at least), in bytes (at most)."""
    if group.work == "prefill":
        return 1.3
    if group.work == "memory":
        return 1.0
    if group.work in ("batch", "attention"):
        return {"batch": 4.0, "attention": 3.0}[group.work] if side != "source" else None
    if side == "source":
        return {(0, "bf16"): 1.5, (0, "int8"): 1.5, (0, "int4"): 1.5, (8192, "bf16"): 2.0, (8192, "int8"): 2.0}.get(
            (group.depth, group.weights))
    return {(8192, "bf16"): 3.0, (8192, "int8"): 3.5, (8192, "int4"): 4.0, (32768, "int8"): 7.0}.get(
        (group.depth, group.weights))


CACHE_DEPTH = 8192
CACHE_TARGET = 0.11  # of llama.cpp's bytes
