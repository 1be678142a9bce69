"""The program that tools/results.py runs, and how it finds a number in the JSON that the program prints."""

import json
import statistics
import subprocess


class Failure(Exception):
    """A run of the program that ended with an error: its last line."""


class Program:
    def __init__(self, options):
        self.path = options.program
        self.options = ["--json", "--log-level", "quiet", "--threads", str(options.threads)]

    def run(self, verb, *arguments):
        """The JSON of one verb, or Failure."""
        command = [self.path, verb, *map(str, arguments), *self.options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Failure(f"{self.path}: {error.strerror}") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Run with --help")]
            raise Failure(lines[-1] if lines else f"{verb} ended with exit code {done.returncode}")
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            raise Failure(f"{verb} printed no JSON ({error})") from error

    def version(self):
        done = subprocess.run([self.path, "--version"], capture_output=True, text=True, check=False)
        return done.stdout.strip()


def pick(value, path):
    """The number that a dotted path names; of a list, the mean over its items. Failure where there is none."""
    try:
        found = follow(value, path.split("."))
    except (KeyError, TypeError, statistics.StatisticsError) as error:
        raise Failure(f"the program's JSON has no number '{path}'") from error
    return found


def follow(value, words):
    if isinstance(value, list):
        return statistics.fmean(follow(item, words) for item in value)
    if words:
        return follow(value[words[0]], words[1:])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return value
