#!/usr/bin/env python3
"""Checks that the C++ sources are formatted by clang-format 14 with the project's .clang-format. --fix rewrites them.

Takes clang-format from .venv/ (where ./dev installs it), else from the PATH.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "version 14."


def find_clang_format():
    for candidate in (ROOT / ".venv/bin/clang-format", "clang-format-14", "clang-format"):
        found = shutil.which(candidate)
        if found and VERSION in subprocess.run([found, "--version"], capture_output=True, text=True).stdout:
            return found
    sys.exit("clang-format 14 is neither in .venv/ nor on the PATH: ./dev format installs it")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fix", action="store_true", help="rewrite the files instead of naming what differs")
    mode = ["-i"] if parser.parse_args().fix else ["--dry-run", "--Werror"]
    files = sorted(str(p) for folder in ("src", "tests") for p in (ROOT / folder).rglob("*") if p.suffix in (".h", ".cpp"))
    return subprocess.run([find_clang_format(), *mode, *files], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
