#!/usr/bin/env python3
"""Tests of tools/results.py: runs recipes/smoke.toml with the program that the command line names, and mistreats it.

    results_test.py build/release/mha2mla
"""

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

import svg_plot
from results_recipe import RecipeError, groups, read_recipe

ROOT = Path(__file__).resolve().parent.parent
SMOKE = (ROOT / "recipes/smoke.toml").read_text(encoding="utf-8")
ROWS = 3 + 2 * 2 * 2  # source formats; methods, sizes, formats
# Two rows and one conversion of it.
SHORT = SMOKE[:SMOKE.index("[[methods]]")] + SMOKE[SMOKE.rindex("[[methods]]"):]
for old, new in [("sizes = [32, 16]", "sizes = [16]"), ('formats = ["bf16", "int4"]', 'formats = ["int4"]'),
                 ('source_formats = ["bf16", "int4", "int2"]', 'source_formats = ["int4"]')]:
    assert old in SHORT
    SHORT = SHORT.replace(old, new)
# A recovery, a model that is there converted and two tasks, with SHORT's conversion.
TEXT = ROOT / "tests/fixtures/models/tiny-text/config.json"
FINETUNE = ["--text", str(TEXT), "--window", "32", "--held-out", "1", "--batch-tokens", "64"]
RECOVERED = SHORT.replace('plot = "a configuration"', 'plot = "made up"') + f"""
finetune = {{ tokens = 256, options = {FINETUNE} }}

[[models]]
name = "ready"
path = "READY"

[[tasks]]
name = "made up"
task = "quiz"
data = "models"
limit = 3
options = ["--subject", "none"]
quality = "tasks.accuracy"

[[tasks]]
name = "no such number"
task = "quiz"
data = "models"
limit = 0
quality = "colour"
formats = ["int4"]
"""
# Answers a task that only this program has; all else is for the real one.
STAND_IN = """#!{python}
import json, subprocess, sys
if "quiz" not in sys.argv:
    sys.exit(subprocess.run(["{program}", *sys.argv[1:]]).returncode)
with open("{folder}/asked", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
tasks = [{{"task": "a", "accuracy": 0.25}}, {{"task": "b", "accuracy": 0.5}}]
print(json.dumps({{"task": "quiz", "tasks": tasks, "questions": 6, "seconds": 0.5}}))
"""
SVG = "{http://www.w3.org/2000/svg}"
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else sys.exit(__doc__)


class Sandbox(unittest.TestCase):
    """Runs a recipe in a folder of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)
        self.out = self.folder / "out"

    def results(self, recipe, *options, program=PROGRAM):
        (self.folder / "recipe.toml").write_text(recipe, encoding="utf-8")
        fixtures = ROOT / "tests/fixtures"
        return subprocess.run(
            [sys.executable, ROOT / "tools/results.py", self.folder / "recipe.toml", self.out, "--program", program,
             "--model", fixtures / "models/tiny-text", "--data", fixtures, "--work", self.folder / "work", *options],
            capture_output=True, text=True, check=False)

    def rows(self):
        return [json.loads(line) for line in (self.out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


class SmokeTest(Sandbox):
    def test_rows_table_and_plot(self):
        done = self.results(SMOKE)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = self.rows()
        self.assertEqual(len(rows), ROWS)
        sizes = {(row["point"]["method"], row["point"]["elements"], row["point"]["format"]):
                 row["bytes_per_token"] for row in rows}
        layers = 2
        sizes = {where: size / layers for where, size in sizes.items()}
        self.assertEqual(sizes["source", 64, "bf16"], 128)
        self.assertEqual(sizes["source", 64, "int4"], 4 * (8 + 4))  # 2 heads' keys and values: 16 codes, scale, zero
        self.assertEqual(sizes["source", 64, "int2"], 4 * (4 + 4))
        self.assertEqual(sizes["mha2mla", 16, "bf16"], 32)
        self.assertEqual(sizes["mha2mla", 16, "int4"], (12 / 2 + 4) + (4 + 4))  # latent 12, rotary 2 heads of 2 in int8
        table = (self.out / "README.md").read_text(encoding="utf-8")
        self.assertEqual(table.count("\n| mha2mla |"), 4)
        self.assertNotIn("failed", table)
        strokes = xml.parse(self.out / "plot.svg").findall(f"{SVG}polyline")
        self.assertEqual(len(strokes), 5 * 2, "curves and their legend")
        self.assertFalse((self.folder / "work/model").exists(), "converted models are removed")

    def test_goes_on_where_it_was_stopped(self):
        self.assertIn("at least 1 min left", self.results(SHORT).stderr, "an estimate, before anything was converted")
        before = self.rows()
        whole = (self.out / "rows.jsonl").read_text(encoding="utf-8")
        (self.out / "rows.jsonl").write_text(whole[:-20], encoding="utf-8")  # the last row is torn
        self.assertIn("2 rows, 1 of them there already; 1 conversions", self.results(SHORT).stderr)
        again = self.rows()
        self.assertEqual(again[0], before[0], "measured rows are kept")
        self.assertEqual(again[1]["perplexity"], before[1]["perplexity"])
        self.assertIn("2 rows, 0 of them there already", self.results(SHORT, "--fresh").stderr)
        self.assertEqual(len(self.rows()), 2)

    def test_a_row_that_fails_is_reported_and_stops_no_other(self):
        broken = SHORT.replace('"--rope-pairs", "1"', '"--rope-pairs", "999"')
        broken = broken.replace('source_formats = ["int4"]', 'source_formats = ["int3", "int4"]')
        done = self.results(broken)
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 rows failed", done.stderr)
        self.assertEqual(["error" in row for row in self.rows()], [True, False, True])
        table = (self.out / "README.md").read_text(encoding="utf-8")
        self.assertEqual(table.count("| failed |"), 2)
        self.assertRegex(table, r"- source, 64 elements \(1\): .*'int3'")
        self.assertIn("3 rows, 1 of them there already", self.results(broken).stderr, "what failed is tried again")
        self.assertEqual(len(self.rows()), 3 + 2)

    def test_a_file_of_other_rows_is_an_error(self):
        self.out.mkdir()
        (self.out / "rows.jsonl").write_text("{}\n", encoding="utf-8")
        done = self.results(SHORT)
        self.assertEqual(done.returncode, 1)
        self.assertIn("rows.jsonl:1", done.stderr)


class RecoveryTest(Sandbox):
    """Recovery, ready models and tasks."""

    def setUp(self):
        super().setUp()
        self.stand_in = self.folder / "program"
        self.stand_in.write_text(STAND_IN.format(python=sys.executable, program=Path(PROGRAM).resolve(), folder=self.folder),
                                 encoding="utf-8")
        self.stand_in.chmod(0o755)
        self.recipe = RECOVERED.replace("READY", str(self.folder / "ready"))
        subprocess.run([PROGRAM, "convert", ROOT / "tests/fixtures/models/tiny-text", self.folder / "ready", "--method",
                        "mha2mla", "--rope-pairs", "1", "--cache-ratio", "0.5", "--log-level", "quiet"], check=True,
                       capture_output=True)

    def test_rows_table_and_plot(self):
        done = self.results(self.recipe, program=self.stand_in)
        self.assertIn("error: 4 rows failed", done.stderr)
        self.assertIn("12 rows, 0 of them there already; 1 conversions and 1 recoveries to do", done.stderr)
        rows = {(row["point"]["method"], row["point"].get("task", "text")): row for row in self.rows() if "error" not in row}
        self.assertEqual([method for method, task in rows if task == "text"],
                         ["source", "ready", "mha2mla", "mha2mla, recovered"])
        self.assertEqual(rows["ready", "text"]["point"]["elements"], 32)
        self.assertNotEqual(rows["mha2mla", "text"]["perplexity"], rows["mha2mla, recovered", "text"]["perplexity"])
        self.assertEqual(rows["mha2mla, recovered", "text"]["bytes_per_token"], rows["mha2mla", "text"]["bytes_per_token"])
        self.assertEqual(rows["ready", "quiz"]["accuracy"], 0.375, "the mean over the tasks")
        self.assertEqual(rows["ready", "quiz"]["tasks"][1]["accuracy"], 0.5)
        self.check_report(done)
        self.check_questions()

    def check_report(self, done):
        table = (self.out / "README.md").read_text(encoding="utf-8")
        self.assertRegex(table, r"\n\| mha2mla, recovered \| 16 \| int4 \| 36 \| [0-9.,]+ \| 0.375 \| failed \|")
        self.assertIn("has no number 'colour'", table)
        self.assertIn("`eval --task quiz --data models --limit 3 --subject none`", table)
        words = {text.text for text in xml.parse(self.out / "plot.svg").findall(f"{SVG}text")}
        self.assertTrue({"mha2mla, recovered, int4 cache", "ready, int4 cache", "accuracy, made up"} <= words, words)
        if shutil.which("rsvg-convert"):
            self.assertEqual((self.out / "plot.png").read_bytes()[:4], b"\x89PNG")
        else:
            self.assertIn("no plot.png: rsvg-convert is not installed", done.stderr)

    def check_questions(self):
        asked = (self.folder / "asked").read_text(encoding="utf-8").splitlines()
        for line in asked:
            self.assertIn("--weights f32 --kv-cache int4", line)
        limited = [line for line in asked if "--limit 3 --subject none" in line]
        self.assertEqual(len(limited), 4, "--limit 0 is left out")

    def test_what_a_failed_row_needs_again_is_kept(self):
        self.results(self.recipe, program=self.stand_in)
        again = self.results(self.recipe, program=self.stand_in)
        self.assertIn("12 rows, 8 of them there already", again.stderr)
        self.assertNotIn("training", again.stderr, "the recovered model is kept as long as one of its rows failed")
        self.results(self.recipe.replace('quality = "colour"', 'quality = "questions"'), program=self.stand_in)
        self.assertEqual(list((self.folder / "work").glob("recovered-*")), [])


class RecipeTest(Sandbox):
    def refusal(self, recipe):
        (self.folder / "recipe.toml").write_text(recipe, encoding="utf-8")
        with self.assertRaises(RecipeError) as caught:
            read_recipe(self.folder / "recipe.toml")
        return str(caught.exception)

    def test_every_recipe_of_ours_is_read(self):
        for path in sorted((ROOT / "recipes").glob("*.toml")):
            self.assertTrue(read_recipe(path).methods, path)

    def test_mistakes_in_tasks_models_and_recoveries_are_named(self):
        for old, new, words in [
                ('quality = "colour"', "", "tasks: the field 'quality' is missing"),
                ('quality = "colour"', 'quality = "colour"\nfirst = 1', "tasks: unknown field 'first'"),
                ("limit = 0", "limit = -1", "'limit' must be at least 0"),
                ('name = "made up"', 'name = "a configuration"', "'a configuration' is there twice"),
                ('name = "ready"', 'name = "mha2mla"', "'mha2mla' is there twice"),
                ('name = "ready"', 'name = "source"', "'source' is there twice"),
                ("tokens = 256", "tokens = 0", "methods, finetune: 'tokens' must be at least 1"),
                ("tokens = 256", "token = 256", "methods, finetune: the field 'tokens' is missing")]:
            self.assertIn(old, RECOVERED)
            self.assertIn(words, self.refusal(RECOVERED.replace(old, new, 1)))

    def test_mistakes_are_named(self):
        for old, new, words in [
                ("window = 64", "window = 64\ncolour = 1", "unknown field 'colour'"),
                ("window = 64", "", "'window' is missing"),
                ("window = 64", "window = true", "'window' must be of type int"),
                ("window = 64", "window = 1", "at least 2"),
                ("sizes = [32, 16]", "sizes = [32, 0]", "'sizes' must be at least 1"),
                ("sizes = [32, 16]", "sizes = [32, 32]", "'32' is there twice"),
                ("sizes = [32, 16]", 'sizes = ["32"]', "'sizes' must hold int items"),
                ('formats = ["bf16", "int4"]', "formats = []", "'formats' is empty"),
                ('name = "mha2mla"', 'name = "lsq"', "'lsq' is there twice"),
                ('statistics = "lsq"', 'statistic = "lsq"', "methods: unknown field 'statistic'"),
                ('plot = "a conf', 'plot = "another conf', "names none of the texts and tasks"),
                ("windows = 2", "windows = 0", "'windows' must be at least 1"),
                ("windows = 2", 'windows = 2\nformats = ["int3"]', "no format 'int3' for 'a configuration'"),
                ("title =", "title", "recipe.toml")]:
            self.assertIn(old, SMOKE)
            self.assertIn(words, self.refusal(SMOKE.replace(old, new, 1)))

    def test_a_text_may_name_its_formats(self):
        (self.folder / "recipe.toml").write_text(SMOKE.replace("windows = 2", 'windows = 2\nformats = ["int4"]'),
                                                 encoding="utf-8")
        points = [point for group in groups(read_recipe(self.folder / "recipe.toml"), 64) for point in group]
        self.assertEqual({point.format for point in points}, {"int4"})
        self.assertEqual(len(points), 1 + 2 * 2)

    def test_a_missing_recipe_is_one_line(self):
        with self.assertRaises(RecipeError):
            read_recipe(self.folder / "none.toml")


class PlotTest(unittest.TestCase):
    def curves(self):
        falling = [(10.0 * 2 ** i, 3000.0 / 3 ** i) for i in range(6)]
        return [svg_plot.Curve("a <b> & c", falling, "#000000", labels=[f"point {i}" for i in range(6)]),
                svg_plot.Curve("one point", [(50.0, 20.0)], "#ff0000", hollow=True)]

    def test_a_point_lies_where_the_axes_say(self):
        axis = svg_plot.Axis([10.0, 1000.0], 0, 100, (1,))
        self.assertAlmostEqual(axis.pixel(100.0), 50)
        self.assertEqual(axis.ticks(), [10.0, 100.0, 1000.0])
        self.assertTrue(0 < axis.pixel(10.0) < axis.pixel(1000.0) < 100)

    def test_ticks_of_a_linear_axis_are_round(self):
        axis = svg_plot.LinearAxis([0.31, 0.52], 100, 0, (1, 2, 5))
        self.assertEqual([round(tick, 6) for tick in axis.ticks()], [0.3, 0.35, 0.4, 0.45, 0.5])
        self.assertAlmostEqual(axis.pixel((axis.low + axis.high) / 2), 50)
        flat = svg_plot.LinearAxis([0.4], 100, 0, (1, 2, 5))
        self.assertTrue(flat.low < 0.4 < flat.high and flat.ticks())

    def test_it_is_well_formed_and_inside(self):
        root = xml.fromstring(svg_plot.plot(svg_plot.Words("A < B", "", "bytes", "perplexity"), self.curves()))
        for circle in root.findall(f"{SVG}circle"):
            self.assertTrue(svg_plot.AXES.left < float(circle.get("cx")) < svg_plot.AXES.right)
            self.assertTrue(svg_plot.AXES.top < float(circle.get("cy")) < svg_plot.AXES.bottom)
        words = {text.text for text in root.findall(f"{SVG}text")}
        self.assertTrue({"A < B", "bytes", "perplexity", "a <b> & c", "point 0", "point 5"} <= words)

    def test_labels_and_legend_meet_nothing(self):
        curve = self.curves()[0]
        pixels = [(svg_plot.AXES.left + 60.0 + 40 * i, svg_plot.AXES.top + 90.0 + 30 * i) for i in range(6)]
        taken = svg_plot.crossed_boxes(pixels)
        lines = len(taken)
        taken.append(svg_plot.legend_box([curve], taken))
        svg_plot.draw_labels(curve, pixels, taken)
        placed = taken[lines:]
        self.assertEqual(len(placed), 7)
        for i, box in enumerate(placed):
            self.assertTrue(svg_plot.AXES.holds(box))
            self.assertFalse(any(box.overlaps(other) for other in taken[:lines + i]))


if __name__ == "__main__":
    unittest.main()
