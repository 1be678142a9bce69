#!/usr/bin/env python3
"""Tests of tools/results.py: runs recipes/smoke.toml with the program that the command line names, and mistreats it.

    results_test.py build/release/mha2mla
"""

import json
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
SVG = "{http://www.w3.org/2000/svg}"
PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else sys.exit(__doc__)


class Sandbox(unittest.TestCase):
    """Runs a recipe in a folder of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)
        self.out = self.folder / "out"

    def results(self, recipe, *options):
        (self.folder / "recipe.toml").write_text(recipe, encoding="utf-8")
        fixtures = ROOT / "tests/fixtures"
        return subprocess.run(
            [sys.executable, ROOT / "tools/results.py", self.folder / "recipe.toml", self.out, "--program", PROGRAM,
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
                 row["bytes_per_token_and_layer"] for row in rows}
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


class RecipeTest(Sandbox):
    def refusal(self, recipe):
        (self.folder / "recipe.toml").write_text(recipe, encoding="utf-8")
        with self.assertRaises(RecipeError) as caught:
            read_recipe(self.folder / "recipe.toml")
        return str(caught.exception)

    def test_every_recipe_of_ours_is_read(self):
        for path in sorted((ROOT / "recipes").glob("*.toml")):
            self.assertTrue(read_recipe(path).methods, path)

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
                ('plot_text = "a conf', 'plot_text = "another conf', "names none of the texts"),
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

    def test_it_is_well_formed_and_inside(self):
        root = xml.fromstring(svg_plot.plot("A < B", "", "bytes", "perplexity", self.curves()))
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
