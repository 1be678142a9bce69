#!/usr/bin/env python3
"""One measurement of llama.cpp through the low-level interface of llama-cpp-python: what `mha2mla bench --json` is for ours.

    llama_cpp_worker.py '{"model": "m.gguf", "threads": 2, "flash": true, "kv": "f16", "sequences": 1,
                          "prefill": 0, "decode": 64, "depths": [0, 2048], "repetitions": 3, "states": "folder"}'

Prints one JSON object. `states` (may be null) is a folder that keeps filled caches, because filling takes longer than
measuring. Runs in the environment that tools/llama_cpp_setup.py makes.
"""

import ctypes
import json
import re
import statistics
import sys
import time
from pathlib import Path

import llama_cpp as api

BATCH = 2048       # tokens of a call; llama.cpp cuts them into pieces of 512
ROUNDING = 256     # llama.cpp's own, of a sequence's context
MIB = 1 << 20
CACHE_TYPES = {"f16": api.GGML_TYPE_F16, "q8_0": api.GGML_TYPE_Q8_0, "q4_0": api.GGML_TYPE_Q4_0,
               "bf16": 30}  # GGML_TYPE_BF16 of ggml.h, which the bindings lack


def memory_bytes():
    """What this process holds now, and the most it held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {name: 1024 * int(re.search(rf"{key}:\s+(\d+)", status)[1]) for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


class Log:
    """Keeps what the library says, for errors and for the size of the cache that it reports."""

    def __init__(self):
        self.text = ""
        self.callback = api.llama_log_callback(self.add)
        api.llama_log_set(self.callback, ctypes.c_void_p(0))

    def add(self, _level, text, _data):
        self.text += text.decode(errors="replace")

    def fail(self, what):
        end = "\n".join(self.text.splitlines()[-5:])
        sys.exit(f"error: {what}; llama.cpp said:\n{end}")

    def cache_bytes(self):
        """Bytes of the cache for all cells of its context."""
        sizes = re.findall(r"KV buffer size\s*=\s*([0-9.]+) MiB", self.text)
        return round(sum(map(float, sizes)) * MIB) or self.fail("no size of the cache was reported")


class Context:
    def __init__(self, request, log):
        self.request, self.log = request, log
        self.sequences = request["sequences"]
        api.llama_backend_init()
        model_parameters = api.llama_model_default_params()
        model_parameters.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(request["model"].encode(), model_parameters)
        if not self.model:
            log.fail(f"{request['model']} cannot be loaded")
        self.handle = api.llama_init_from_model(self.model, self.parameters())
        if not self.handle:
            log.fail("no context")
        self.memory = api.llama_get_memory(self.handle)
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(BATCH, 0, 1)

    def parameters(self):
        request, parameters = self.request, api.llama_context_default_params()
        tokens = max(request["depths"]) + max(request["prefill"], request["decode"], 1)
        parameters.n_ctx = self.sequences * -(-tokens // ROUNDING) * ROUNDING
        parameters.n_batch, parameters.n_seq_max, parameters.kv_unified = BATCH, self.sequences, False
        parameters.n_threads = parameters.n_threads_batch = request["threads"]
        parameters.flash_attn_type = 1 if request["flash"] else 0
        parameters.type_k = parameters.type_v = CACHE_TYPES[request["kv"]]
        parameters.offload_kqv = parameters.op_offload = parameters.no_perf = False
        self.cells = parameters.n_ctx
        return parameters

    def decode(self, items):
        """One call for (token, position, sequence, wants logits) items."""
        self.batch.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wanted
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
        if api.llama_decode(self.handle, self.batch) != 0:
            self.log.fail("llama_decode failed")

    def token(self, position):
        return (position * 7919 + 13) % self.vocabulary

    def prefill(self, begin, end, sequence):
        """Logits of the last token alone, as ours."""
        for start in range(begin, end, BATCH):
            positions = range(start, min(end, start + BATCH))
            self.decode([(self.token(p), p, sequence, p == end - 1) for p in positions])

    def generate(self, begin, tokens):
        for position in range(begin, begin + tokens):
            self.decode([(self.token(position), position, s, True) for s in range(self.sequences)])
            api.llama_synchronize(self.handle)

    def truncate(self, tokens):
        for sequence in range(self.sequences):
            api.llama_memory_seq_rm(self.memory, sequence, tokens, -1)

    def fill(self, begin, end):
        """Brings every sequence from `begin` to `end` tokens."""
        path = self.state_path(end)
        if path and path.exists():
            return self.load_state(path, end)
        for sequence in range(self.sequences):
            self.prefill(begin, end, sequence)
        api.llama_synchronize(self.handle)
        if path:
            self.save_state(path)

    def state_path(self, depth):
        if not self.request["states"] or self.sequences > 1 or depth < 1024:
            return None
        stem = Path(self.request["model"]).stem
        return Path(self.request["states"]) / f"{stem}-{self.request['kv']}-{int(self.request['flash'])}-{depth}.state"

    def load_state(self, path, depth):
        count, tokens = ctypes.c_size_t(0), (api.llama_token * 1)()
        api.llama_memory_clear(self.memory, True)
        if not api.llama_state_seq_load_file(self.handle, str(path).encode(), 0, tokens, 1, ctypes.byref(count)):
            self.log.fail(f"{path} cannot be loaded; remove it")
        if api.llama_memory_seq_pos_max(self.memory, 0) != depth - 1:
            self.log.fail(f"{path} holds another number of tokens; remove it")

    def save_state(self, path):
        partial = path.with_suffix(".partial")
        if not api.llama_state_seq_save_file(self.handle, str(partial).encode(), 0, (api.llama_token * 1)(), 0):
            self.log.fail(f"{partial} cannot be written")
        partial.rename(path)


def timed(context, work):
    """Seconds by our clock and by llama.cpp's own."""
    api.llama_perf_context_reset(context.handle)
    start = time.perf_counter()
    work()
    api.llama_synchronize(context.handle)
    seconds = time.perf_counter() - start
    own = api.llama_perf_context(context.handle)
    return seconds, (own.t_eval_ms + own.t_p_eval_ms) / 1000


def measure(context, test, depth, work):
    tokens = context.request[test] * (context.sequences if test == "decode" else 1)
    times = []
    for _ in range(context.request["repetitions"]):
        times.append(timed(context, work))
        context.truncate(depth)
    seconds, own_seconds = (statistics.median(column) for column in zip(*times))
    return {"test": test, "depth": depth, "tokens_per_second": tokens / seconds, "own_clock": own_seconds / seconds}


def measure_depths(context):
    """Of each test that is asked for, at each depth; the first call of all is not timed."""
    request, results, filled = context.request, [], 0
    context.generate(0, 1)
    context.truncate(0)
    for depth in sorted(request["depths"]):
        if depth > filled:
            context.fill(filled, depth)
        filled = depth
        context.generate(depth, 1)
        context.truncate(depth)
        if request["prefill"]:
            results.append(measure(context, "prefill", depth, lambda: context.prefill(depth, depth + request["prefill"], 0)))
        if request["decode"]:
            results.append(measure(context, "decode", depth, lambda: context.generate(depth, request["decode"])))
    return results


def main():
    request = json.loads(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
    before = memory_bytes()  # Python and the library, without a model
    log = Log()
    context = Context(request, log)
    results = measure_depths(context)
    memory = memory_bytes()
    print(json.dumps({"results": results, "cache_bytes_per_token": log.cache_bytes() / context.cells,
                      "resident_bytes": memory["now"] - before["now"], "peak_bytes": memory["peak"] - before["now"],
                      "system_info": api.llama_print_system_info().decode()}))


if __name__ == "__main__":
    main()
