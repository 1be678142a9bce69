#!/usr/bin/env python3
"""Runs a recipe: converts a model by several methods to several sizes, and measures each with several cache formats.

    results.py recipes/table.toml OUT --program build/release/mha2mla --model MODEL.gguf --data DATA

Under OUT appear rows.jsonl, a line per measurement as soon as it is made, and from them README.md (the table) and
plot.svg. Started again it goes on: rows that are there are kept, whichever commit made them, and those that failed are
tried again; --fresh measures all anew. A row that fails is reported and does not stop the others; the exit code is 1
then. Converted models and the calibration's statistics lie in --work; each model is removed once it is measured. Needs
nothing beyond Python 3.11's standard library.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from results_recipe import RecipeError, groups, read_recipe
from results_report import write_report


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


class Remaining:
    """Estimates the time left from what this run has measured: seconds a window, seconds a conversion."""

    def __init__(self, pending):
        self.windows = sum(point.text.windows for group in pending for point in group)
        self.conversions = sum(group[0].method is not None for group in pending)
        self.spent = {"window": [0.0, 0], "conversion": [0.0, 0]}  # seconds, how many

    def evaluated(self, windows, seconds):
        self.windows -= windows
        self.add("window", seconds, windows)

    def converted(self, seconds):
        self.conversions -= 1
        self.add("conversion", seconds, 1)

    def skip(self, points):
        self.windows -= sum(point.text.windows for point in points)

    def add(self, kind, seconds, count):
        self.spent[kind][0] += seconds
        self.spent[kind][1] += count

    def text(self):
        left, word = 0.0, "about"
        for kind, count in (("window", self.windows), ("conversion", self.conversions)):
            seconds, done = self.spent[kind]
            if done:
                left += count * seconds / done
            elif count:
                word = "at least"
        return f"{word} {max(1, round(left / 60))} min left" if self.windows else "done"


class Rows:
    """rows.jsonl: the latest row of a point counts."""

    def __init__(self, path):
        self.path = path
        self.by_point = {}
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        whole = text[:text.rfind("\n") + 1]
        if whole != text:  # an interruption tore the last line
            path.write_text(whole, encoding="utf-8")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self.by_point[json.dumps(row["point"])] = row
            except (ValueError, TypeError, KeyError) as error:
                raise RecipeError(f"{path}:{number}: not a row of results ({error}); --fresh starts anew") from error

    def find(self, point):
        return self.by_point.get(json.dumps(point))

    def measured(self, point):
        row = self.find(point)
        return row is not None and "error" not in row

    def add(self, row):
        self.by_point[json.dumps(row["point"])] = row
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def key(recipe, model, point):
    """All that a measurement depends on but the program's version, as it stands in rows.jsonl."""
    text = point.text
    return {"model": Path(model).name, "method": point.method.name if point.method else "source",
            "options": list(point.method.options) if point.method else [],
            "elements": point.elements, "format": point.format, "weights": recipe.weights, "window": recipe.window,
            "text": text.path, "first": text.first, "windows": text.windows}


def engine_options(recipe, form):
    """bf16 rows are what the native runtime caches. What it does not, the LibTorch module emulates, in f32: many
    processors multiply bf16 matrices slowly there."""
    if form == "bf16":
        return ["--engine", "native", "--weights", recipe.weights]
    return ["--engine", "workshop", "--weights", "f32", "--emulate-cache", form]


def label(point):
    name = point.method.name if point.method else "source"
    return f"{name}, {point.elements} elements"


class Run:
    def __init__(self, options, recipe):
        self.options, self.recipe = options, recipe
        self.program = Program(options)
        self.work = Path(options.work)
        self.rows = Rows(Path(options.out) / "rows.jsonl")
        self.version = self.program.version()
        cache = self.program.run("inspect", options.model)["kv_cache"]
        self.layers = len(cache["bytes_per_token_per_layer"])
        self.source_elements = cache["source_bytes_per_token"] // 2 // self.layers
        self.groups = groups(recipe, self.source_elements)

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def key(self, point):
        return key(self.recipe, self.options.model, point)

    def record(self, point, result):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.rows.add({"point": self.key(point), **result, "version": self.version, "time": now})

    def fail(self, points, error):
        for point in points:
            self.record(point, {"error": str(error)})
        self.say(f"  failed: {error}")

    def convert(self, point):
        """The converted model's directory."""
        target = self.work / "model"
        arguments = [*point.method.options, "--cache-ratio", point.elements / self.source_elements, "--force"]
        if point.method.statistics:
            arguments += ["--statistics", self.work / f"statistics-{point.method.statistics}"]
        self.program.run("convert", self.options.model, target, *arguments)
        return target

    def evaluate(self, model, point):
        text = Path(self.options.data) / point.text.path
        result = self.program.run(
            "eval", model, "--text", text, "--first", point.text.first, "--windows", point.text.windows,
            "--window", self.recipe.window, *engine_options(self.recipe, point.format))
        if result["perplexity"] is None:
            raise Failure("the perplexity is not a finite number")
        bytes_per_token = result["kv_cache"]["bytes_per_token"]
        return {"perplexity": result["perplexity"], "bytes_per_token_and_layer": bytes_per_token / self.layers,
                "tokens": result["tokens"], "seconds": round(result["seconds"], 1)}

    def measure(self, points, remaining):
        """All points of one model."""
        model = self.options.model
        if points[0].method:
            self.say(f"{label(points[0])}: converting")
            start = time.monotonic()
            try:
                model = self.convert(points[0])
            finally:
                remaining.converted(time.monotonic() - start)
        for point in points:
            start = time.monotonic()
            try:
                result = self.evaluate(model, point)
            except Failure as error:
                self.fail([point], error)
                remaining.skip([point])
                continue
            self.record(point, result)
            remaining.evaluated(point.text.windows, time.monotonic() - start)
            self.say(f"{label(point)}, {point.format}, {point.text.name}: {result['perplexity']:.2f} "
                     f"({result['seconds']:.0f} s; {remaining.text()})")

    def pending(self):
        """The points without a measurement, model by model."""
        left = ([p for p in group if not self.rows.measured(self.key(p))] for group in self.groups)
        return [group for group in left if group]

    def measure_all(self):
        pending = self.pending()
        remaining = Remaining(pending)
        todo, total = sum(map(len, pending)), sum(map(len, self.groups))
        self.say(f"{total} rows, {total - todo} of them there already; {remaining.conversions} conversions to do")
        for points in pending:
            try:
                self.measure(points, remaining)
            except Failure as error:
                self.fail(points, error)
                remaining.skip(points)
        shutil.rmtree(self.work / "model", ignore_errors=True)

    def report(self):
        """Writes table and plot; returns how many rows failed."""
        table = [(point, self.rows.find(self.key(point))) for group in self.groups for point in group]
        table = [(point, row) for point, row in table if row]
        command = f"./dev results {self.options.recipe} {self.options.out}"
        write_report(Path(self.options.out), self.recipe, table, command)
        return sum("error" in row for _, row in table)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="TOML file, such as recipes/table.toml")
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--program", required=True, help="the executable mha2mla")
    parser.add_argument("--model", required=True, help="source model: a directory or a GGUF file")
    parser.add_argument("--data", required=True, help="folder below which the recipe's texts lie")
    parser.add_argument("--work", required=True, help="folder for statistics and converted models")
    parser.add_argument("--fresh", action="store_true", help="measure every row anew, and calibrate anew")
    parser.add_argument("--threads", type=int, default=0, help="threads (default 0: one per core)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    try:
        recipe = read_recipe(options.recipe)
        if options.fresh:
            for made in (*Path(options.work).glob("statistics-*"), Path(options.work) / "model"):
                shutil.rmtree(made, ignore_errors=True)
            (Path(options.out) / "rows.jsonl").unlink(missing_ok=True)
        for folder in (options.out, options.work):
            Path(folder).mkdir(parents=True, exist_ok=True)
        run = Run(options, recipe)
        start = time.monotonic()
        run.measure_all()
        failed = run.report()
    except (RecipeError, Failure, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    print(f"{options.out}/README.md ({(time.monotonic() - start) / 60:.1f} min)", file=sys.stderr)
    if failed:
        sys.exit(f"error: {failed} rows failed: see {options.out}/README.md")


if __name__ == "__main__":
    main()
