"""llama.cpp for comparisons: its Python package, built for this very machine in an environment of its own, and its model files.

Everything lies below one working folder and is made once; what an interruption left half is made again.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("llama-cpp-python==0.3.36", "gguf==0.19.0")
# All instruction sets of the host and llama.cpp's own matrix products; no GPU, no multimodal part, no downloads.
CMAKE_ARGS = "-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_CURL=OFF"
# GCC 12 takes the first 8 of the 64 bytes that _tile_loadconfig reads for all of them, and drops the stores to the others as
# dead: on a processor with AMX llama.cpp then crashes at its first prompt of q8_0 or q4_1.
CXX_FLAGS = "-fno-tree-dse -fno-dse"
TOOLS = Path(__file__).resolve().parent
LOG_LINES = 15


class Failure(Exception):
    """What went wrong, in a sentence for the user."""


def run_logged(command, log, **options):
    """Runs a command whose output goes to a file; Failure shows the end of it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run([*map(str, command)], stdout=file, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
        raise Failure(f"`{' '.join(map(str, command))}` ended with exit code {done.returncode}; {log} ends:\n{end}")


def build_key():
    """What a finished build depends on: versions, options, and the instruction sets that it was made for."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.partition(":")[2].strip() for line in cpu if line.startswith("flags")), "")
    return "\n".join([*PACKAGES, CMAKE_ARGS, CXX_FLAGS, flags])


class Peer:
    """The environment with llama.cpp, and the files that it reads."""

    def __init__(self, work):
        self.work = Path(work)
        self.python = self.work / "venv/bin/python"
        self.log = self.work / "log"

    def install(self, jobs):
        stamp, wanted = self.work / "venv/stamp", build_key()
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return
        print(f"building {PACKAGES[0]} (some minutes; {self.log}/pip.log follows it)", file=sys.stderr, flush=True)
        shutil.rmtree(self.work / "venv", ignore_errors=True)
        run_logged([sys.executable, "-m", "venv", self.work / "venv"], self.log / "venv.log")
        # Built from source, and never from pip's cache: a wheel there may be another machine's.
        run_logged([self.python, "-m", "pip", "install", "--no-input", "-v", "--no-binary", "llama-cpp-python",
                    "--no-cache-dir", *PACKAGES], self.log / "pip.log",
                   env=os.environ | {"CMAKE_ARGS": CMAKE_ARGS, "CXXFLAGS": CXX_FLAGS,
                                     "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs)})
        stamp.write_text(wanted, encoding="utf-8")

    def make(self, name, *arguments):
        """A file of tools/llama_cpp_files.py; appears whole or not at all."""
        path = self.work / "models" / name
        if not path.exists():
            print(f"making {path}", file=sys.stderr, flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            run_logged([self.python, TOOLS / "llama_cpp_files.py", *(partial if a is None else a for a in arguments)],
                       self.log / f"{name}.log")
            partial.rename(path)
        return path

    def twin(self, model, kind):
        """The GGUF file `model` with its weights stored as `kind`."""
        return self.make(f"{Path(model).name.removesuffix('.gguf')}.{kind}.gguf", "quantize", model, None, kind)

    def wide(self, shape):
        return self.make(f"{shape}.gguf", "wide", shape, None)
