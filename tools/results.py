#!/usr/bin/env python3
"""Runs a recipe: converts a model by several methods to several sizes, trains them, measures each with several caches.

    results.py recipes/table.toml OUT --program build/release/mha2mla --model MODEL.gguf --data DATA

Under OUT appear rows.jsonl, a line per measurement as soon as it is made, and from them README.md (the table), plot.svg
and, where rsvg-convert is installed, plot.png. Started again it goes on: rows that are there are kept, whichever commit made
them, and those that failed are tried again; --fresh measures all anew. A row that fails is reported and does not stop the
others; the exit code is 1 then. Converted and recovered models and the calibration's statistics lie in --work; each model is
removed once it is measured. Needs nothing beyond Python 3.11's standard library.
"""

import argparse
import datetime
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

from results_program import Failure, Program, pick
from results_recipe import Method, RecipeError, Text, groups, read_recipe
from results_report import number, write_png, write_report
from results_rows import Remaining, Rows


DETAILS = ("tokens", "questions", "rows", "tasks", "datasets", "left_out")  # of the program's JSON, kept where they are there


def key(recipe, model, point):
    """All that a measurement depends on but the program's version, as it stands in rows.jsonl."""
    return {"model": Path(model).name, **point.model_key(), "format": point.format, "engine": "native",
            "weights": recipe.weights, "window": recipe.window, **point.measure.key()}


def label(point):
    return f"{point.series}, {point.elements} elements"


class Run:
    def __init__(self, options, recipe):
        self.options, self.recipe = options, recipe
        self.program = Program(options)
        self.work = Path(options.work)
        self.rows = Rows(Path(options.out) / "rows.jsonl")
        self.version = self.program.version()
        self.source_elements = self.elements(options.model)
        self.groups = groups(recipe, self.source_elements, [self.elements(model.path) for model in recipe.models])

    def elements(self, model):
        """That a token leaves in the cache of a layer, on average."""
        cache = self.program.run("inspect", model)["kv_cache"]
        return round(cache["bytes_per_token"] / 2 / len(cache["bytes_per_token_per_layer"]))

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def key(self, point):
        return key(self.recipe, self.options.model, point)

    def record(self, point, result):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.rows.add({"point": self.key(point), **result, "version": self.version, "time": now})

    def fail(self, points, error, remaining):
        for point in points:
            self.record(point, {"error": str(error)})
        remaining.skip(points)
        self.say(f"  failed: {error}")

    def convert(self, point, remaining):
        """The converted model's directory."""
        self.say(f"{label(point)}: converting")
        target, start = self.work / "model", time.monotonic()
        arguments = [*point.method.options, "--cache-ratio", point.elements / self.source_elements, "--force"]
        if point.method.statistics:
            arguments += ["--statistics", self.work / f"statistics-{point.method.statistics}"]
        try:
            self.program.run("convert", self.options.model, target, *arguments)
        finally:
            remaining.add("conversion", 1, time.monotonic() - start)
        return target

    def recovered_path(self, point):
        """Of its own for all that the model depends on: a recovery takes long, and goes on where it was stopped."""
        made = json.dumps([Path(self.options.model).name, point.model_key()])
        return self.work / f"recovered-{hashlib.sha256(made.encode()).hexdigest()[:12]}"

    def recover(self, converted, point, remaining):
        """The directory of what finetune makes of a converted model."""
        target, start, recovery = self.recovered_path(point), time.monotonic(), point.method.finetune
        try:
            if not target.exists():
                self.say(f"{label(point)}: training on {recovery.tokens:,} tokens")
                self.program.run("finetune", converted, "--teacher", self.options.model, "--tokens", recovery.tokens,
                                 "--out", target, "--resume", *recovery.options)
        finally:
            remaining.add("recovery", 1, time.monotonic() - start)
        return target

    def evaluate(self, model, point):
        measure = point.measure
        options = ["--weights", self.recipe.weights, "--kv-cache", point.format]
        data = Path(self.options.data) / measure.path
        if isinstance(measure, Text):
            options += ["--text", data, "--first", measure.first, "--windows", measure.windows,
                        "--window", self.recipe.window]
        else:
            options += ["--task", measure.task, "--data", data, *(["--limit", measure.limit] if measure.limit else []),
                        *measure.options]
        start = time.monotonic()
        result = self.program.run("eval", model, *options)
        kept = {name: result[name] for name in DETAILS if name in result}
        seconds = result.get("seconds", time.monotonic() - start)
        return {measure.quality: pick(result, measure.number), **self.cache_bytes(model, point), **kept,
                "seconds": round(seconds, 1)}

    def cache_bytes(self, model, point):
        cache = self.program.run("inspect", model, "--kv-cache", point.format)["kv_cache"]
        return {"bytes_per_token": cache["bytes_per_token"]}

    def measure_point(self, model, point, remaining):
        start = time.monotonic()
        try:
            result = self.evaluate(model, point)
        except Failure as error:
            self.fail([point], error, remaining)
            return
        self.record(point, result)
        remaining.add(*point.measure.work, time.monotonic() - start)
        self.say(f"{label(point)}, {point.format}, {point.measure.name}: {number(result[point.measure.quality])} "
                 f"({result['seconds']:.0f} s; {remaining.text()})")

    def model(self, points, remaining):
        """The model of `points` before recovery, or None where nobody asks for it."""
        method = points[0].method
        if not isinstance(method, Method):
            return method.path if method else self.options.model
        if points[0].recovered and self.recovered_path(points[0]).exists():
            remaining.left["conversion"] -= 1
            return None
        return self.convert(points[0], remaining)

    def measure_recovered(self, converted, points, remaining):
        try:
            model = self.recover(converted, points[0], remaining)
        except Failure as error:
            self.fail(points, error, remaining)
            return
        for point in points:
            self.measure_point(model, point, remaining)
        if all(self.rows.measured(self.key(point)) for point in points):
            shutil.rmtree(model, ignore_errors=True)

    def measure(self, points, remaining):
        """All points of one model, those behind its recovery last."""
        recovered = [point for point in points if point.recovered]
        try:
            model = self.model(points, remaining)
        except Failure as error:
            remaining.left["recovery"] -= bool(recovered)
            self.fail(points, error, remaining)
            return
        for point in points:
            if not point.recovered:
                self.measure_point(model, point, remaining)
        if recovered:
            self.measure_recovered(model, recovered, remaining)

    def pending(self):
        """The points without a measurement, model by model."""
        left = ([p for p in group if not self.rows.measured(self.key(p))] for group in self.groups)
        return [group for group in left if group]

    def measure_all(self):
        pending = self.pending()
        remaining = Remaining(pending)
        todo, total = sum(map(len, pending)), sum(map(len, self.groups))
        self.say(f"{total} rows, {total - todo} of them there already; {remaining.left['conversion']} conversions and "
                 f"{remaining.left['recovery']} recoveries to do")
        for points in pending:
            self.measure(points, remaining)
        shutil.rmtree(self.work / "model", ignore_errors=True)

    def report(self):
        """Writes table and plot; returns how many rows failed."""
        table = [(point, self.rows.find(self.key(point))) for group in self.groups for point in group]
        table = [(point, row) for point, row in table if row]
        command = f"./dev results {self.options.recipe} {self.options.out}"
        write_report(Path(self.options.out), self.recipe, table, command)
        problem = write_png(Path(self.options.out))
        if problem:
            self.say(f"no plot.png: {problem}")
        return sum("error" in row for _, row in table)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="TOML file, such as recipes/table.toml")
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--program", required=True, help="the executable mha2mla")
    parser.add_argument("--model", required=True, help="source model: a directory or a GGUF file")
    parser.add_argument("--data", required=True, help="folder below which the recipe's texts and tasks lie")
    parser.add_argument("--work", required=True, help="folder for statistics and converted models")
    parser.add_argument("--fresh", action="store_true", help="measure every row anew, and calibrate anew")
    parser.add_argument("--threads", type=int, default=0, help="threads (default 0: one per core)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    try:
        recipe = read_recipe(options.recipe)
        if options.fresh:
            for made in ("statistics-*", "recovered-*", "model"):
                for path in Path(options.work).glob(made):
                    shutil.rmtree(path, ignore_errors=True)
            (Path(options.out) / "rows.jsonl").unlink(missing_ok=True)
        for folder in (options.out, options.work):
            Path(folder).mkdir(parents=True, exist_ok=True)
        run = Run(options, recipe)
        start = time.monotonic()
        try:
            run.measure_all()
        finally:  # stopped, too: of the rows that are there
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
