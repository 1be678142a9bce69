"""The two sides of tools/compare_llama_cpp.py: each runs one measurement of a group in a process of its own.

A measurement is a dictionary: "value" (tokens a second; milliseconds a layer of attention; bytes), "cache_bytes_per_token"
where it is known, "command", and for llama.cpp the settings that it ran with.
"""

import collections
import json
import subprocess
import tempfile
import time
from pathlib import Path

from comparison_cases import PEER_WEIGHTS, WIDE
from llama_cpp_setup import TOOLS, Failure

SAMPLE_SECONDS = 0.1
WIDE_LAYERS = 2
# Flash attention and type of the cache. Without flash attention llama.cpp does not take quantized values.
SETTINGS = ((False, "f16"), (True, "f16"), (True, "bf16"), (True, "q8_0"), (True, "q4_0"))


def resident_bytes(pid):
    """(now, peak) of a process, or None where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in fields:
        return None
    return tuple(1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))


def wait_and_sample(child, limit):
    """Waits for a child; the most that it held in its last second, when it was decoding, and in all its life."""
    samples, end = collections.deque([(0, 0)], maxlen=round(1 / SAMPLE_SECONDS)), time.monotonic() + limit
    while child.poll() is None:
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(child.args, limit)
        samples.append(resident_bytes(child.pid) or samples[-1])
        time.sleep(SAMPLE_SECONDS)
    return max(now for now, _ in samples), max(peak for _, peak in samples)


def run_json(command, limit, sample=False):
    """The JSON that a command prints, and (with `sample`) its memory as wait_and_sample says."""
    command, line, memory = [str(word) for word in command], " ".join(map(str, command)), None
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=out, stderr=errors) as child:
            try:
                memory = wait_and_sample(child, limit) if sample else child.wait(limit)
            except subprocess.TimeoutExpired as error:
                raise Failure(f"no result after {limit} s (--limit): `{line}`") from error
            finally:
                child.kill()
        out.seek(0), errors.seek(0)
        if child.returncode != 0:
            lines = [text.strip() for text in errors if text.strip() and not text.startswith("Run with --help")]
            raise Failure(f"`{line}` ended with exit code {child.returncode}: {' '.join(lines[-3:])}")
        try:
            return json.load(out), memory
        except json.JSONDecodeError as error:
            raise Failure(f"`{line}` printed no JSON ({error})") from error


def attention_milliseconds(speeds, layers):
    """Of one layer, from {depth: tokens a second}: what a step at the deepest takes longer than at depth 0."""
    return 1000 * (1 / speeds[max(speeds)] - 1 / speeds[0]) / layers


class Ours:
    def __init__(self, options, models):
        self.program, self.options, self.models = options.program, options, models

    def common(self, group, side):
        cache = ["--kv-cache", group.kv_cache] if side != "source" else []
        return [self.models(group.model, side), "--weights", group.weights, *cache, "--threads", group.threads,
                "--json", "--log-level", "quiet"]

    def measure(self, group, side):
        if group.work == "memory":
            return self.measure_memory(group, side)
        tokens = ["--prefill", group.tokens, "--decode", 0] if group.work == "prefill" else \
            ["--prefill", 0, "--decode", group.tokens]
        depths = [0, group.depth] if group.work == "attention" else [group.depth]
        command = [self.program, "bench", *self.common(group, side), *tokens, "--depth", ",".join(map(str, depths)),
                   "--repetitions", group.repetitions, "--allow-long-context"]
        if group.sequences > 1:
            command += ["--parallel", group.sequences]
        results, _ = run_json(command, self.options.limit)
        speeds = {result["depth"]: result["tokens_per_second"] for result in results}
        value = attention_milliseconds(speeds, WIDE_LAYERS) if group.work == "attention" else speeds[group.depth]
        return {"value": value, "cache_bytes_per_token": results[-1]["kv_bytes_per_token_allocated"],
                "command": " ".join(map(str, command))}

    def measure_memory(self, group, side):
        """Of `generate`: `bench` holds half a gigabyte itself, to measure the bandwidth with."""
        prompt = Path(self.options.work) / f"prompt-{group.depth}.txt"
        prompt.write_text("the" + " the" * (group.depth - 1), encoding="utf-8")  # a token each
        command = [self.program, "generate", *self.common(group, side), "--file", prompt, "-n", group.tokens, "--ignore-eos"]
        result, memory = run_json(command, self.options.limit, sample=True)
        if result["prompt_tokens"] != group.depth:
            raise Failure(f"the prompt of {group.depth} words has {result['prompt_tokens']} tokens in this vocabulary")
        return {"value": memory[0], "peak_bytes": memory[1], "command": " ".join(map(str, command))}


class LlamaCpp:
    def __init__(self, options, peer, sizes):
        self.options, self.peer, self.sizes = options, peer, sizes

    def model(self, group):
        if group.model in WIDE:
            return self.peer.wide(group.model)
        return self.peer.twin(self.options.model, PEER_WEIGHTS[group.weights])

    def request(self, group, setting, depth):
        prefill, decode = (group.tokens, 0) if group.work == "prefill" else (0, group.tokens)
        # What the process holds is to be what a user's would: the caches are filled, not read from a file.
        states = None if group.work == "memory" else str(Path(self.options.work) / "states")
        return {"model": str(self.model(group)), "threads": group.threads, "flash": setting[0], "kv": setting[1],
                "sequences": group.sequences, "prefill": prefill, "decode": decode, "repetitions": group.repetitions,
                "depths": [0, depth] if group.work == "attention" else [depth], "states": states}

    def run(self, request):
        command = [self.peer.python, TOOLS / "llama_cpp_worker.py", json.dumps(request)]
        result, _ = run_json(command, self.options.limit)
        return result | {"command": " ".join([*map(str, command[:2]), f"'{command[2]}'"])}

    def measure(self, group, setting):
        result = self.run(self.request(group, setting, group.depth))
        speeds = {test["depth"]: test["tokens_per_second"] for test in result["results"]}
        value = {"attention": lambda: attention_milliseconds(speeds, WIDE_LAYERS),
                 "memory": lambda: result["resident_bytes"]}.get(group.work, lambda: speeds[group.depth])()
        return {"value": value, "peak_bytes": result["peak_bytes"], "cache_bytes_per_token": result["cache_bytes_per_token"],
                "own_clock": result["results"][-1]["own_clock"], "flash": setting[0], "kv": setting[1],
                "command": result["command"], "system_info": result["system_info"]}

    def trial(self, group):
        """Tokens a second of each setting in a short run at no more than the depth of trials."""
        depth = min(group.depth, self.sizes.trial_depth)
        speeds = {}
        for setting in SETTINGS:
            request = self.request(group, setting, depth) | {"states": None}
            if not request["prefill"]:
                request["decode"] = max(1, group.tokens // 4)
            speeds[setting] = self.run(request)["results"][-1]["tokens_per_second"]
        return speeds
