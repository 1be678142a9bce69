#!/usr/bin/env python3
"""Tests of tools/compare_llama_cpp.py without llama.cpp: the cases, made-up rows, the table, README's part."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

from comparison_cases import CACHE_DEPTH, FULL, IN_GROUPS, QUICK, WEIGHTS, Setup, all_groups, target
from comparison_report import BEGIN, END, markdown_table, readme_part, replace_part, table_lines, write_report
from comparison_rows import Rows
from comparison_runners import attention_milliseconds, run_json
from llama_cpp_setup import Failure, Peer, build_key
from machine_load import TICKS, busy_seconds

ROOT = Path(__file__).resolve().parent.parent
SETUP = Setup("model.gguf")


def made_up_row(group, side, number, value, **fields):
    return {"group": group.key(), "side": side, "round": number, "value": value, "other_cores": 0.0,
            "version": "mha2mla 9 (commit abc)", "time": "2030-01-02T03:04:05+00:00", "command": "c", **fields}


def peer_fields(**fields):
    return {"flash": True, "kv": "f16", "cache_bytes_per_token": 1000.0} | fields


class Sandbox(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)
        self.rows = Rows(self.folder / "out.jsonl")
        self.groups = all_groups(FULL, SETUP)

    def group(self, work, weights, depth=None, tokens=None):
        found = [g for g in self.groups if g.work == work and g.weights == weights and depth in (None, g.depth)
                 and tokens in (None, g.tokens)]
        return found[0]

    def add(self, group, side, values, **fields):
        for number, value in enumerate(values):
            self.rows.add(made_up_row(group, side, number, value, **fields))

    def only_line(self):
        lines = table_lines(self.groups, self.rows)
        self.assertEqual(len(lines), 1)
        return lines[0]


class CasesTest(unittest.TestCase):
    def test_every_target_of_the_issue_has_its_row(self):
        aims = {}
        for group in all_groups(FULL, SETUP):
            for side in group.ours:
                if target(group, side) is not None:
                    aims.setdefault((group.work, side), []).append(target(group, side))
        self.assertEqual(aims["decode", "source"], [1.5, 2.0, 1.5, 2.0, 1.5])
        self.assertEqual(aims["decode", "converted"], [3.0, 3.5, 4.0, 7.0])
        for side in ("source", "converted"):
            self.assertEqual(aims["prefill", side], [1.3] * 2 * len(WEIGHTS))
            self.assertEqual(aims["memory", side], [1.0] * len(WEIGHTS))
        self.assertEqual(aims["batch", "converted"], [4.0])
        self.assertEqual(aims["attention", "converted"], [3.0, 3.0])
        self.assertEqual(aims["attention", IN_GROUPS], [3.0])

    def test_threads_cache_and_model_belong_to_what_is_measured(self):
        first = all_groups(FULL, SETUP)[0].key()
        for other in (Setup("model.gguf", 1), Setup("other.gguf"), Setup("model.gguf", 2, "int8")):
            self.assertNotEqual(all_groups(FULL, other)[0].key(), first)

    def test_no_two_groups_share_their_rows(self):
        for sizes in (FULL, QUICK):
            keys = [json.dumps(group.key()) for group in all_groups(sizes, SETUP)]
            self.assertEqual(len(keys), len(set(keys)))

    def test_memory_is_taken_at_eight_thousand_tokens(self):
        for group in all_groups(FULL, SETUP):
            if group.work == "memory":
                self.assertEqual(group.depth + group.tokens, CACHE_DEPTH)


class RowsTest(Sandbox):
    def test_rows_are_found_again_and_a_torn_line_is_dropped(self):
        group = self.group("decode", "bf16", 0)
        self.add(group, "source", [1.0, 3.0, 8.0])
        text = self.rows.path.read_text(encoding="utf-8")
        self.rows.path.write_text(text[:-10], encoding="utf-8")
        again = Rows(self.rows.path)
        self.assertEqual(again.find(group, "source", 1)["value"], 3.0)
        self.assertIsNone(again.find(group, "source", 2))
        self.assertIsNone(again.find(group, "llama.cpp", 0))
        self.assertEqual(self.rows.path.read_text(encoding="utf-8").count("\n"), 2)

    def test_another_depth_or_weight_is_another_row(self):
        self.add(self.group("decode", "bf16", 0), "source", [1.0])
        for other in (self.group("decode", "bf16", 2048), self.group("decode", "int8", 0)):
            self.assertIsNone(self.rows.find(other, "source", 0))

    def test_a_file_of_other_rows_is_an_error(self):
        self.rows.path.write_text("{}\n", encoding="utf-8")
        with self.assertRaisesRegex(Failure, "out.jsonl:1"):
            Rows(self.rows.path)


class TableTest(Sandbox):
    def test_speeds_are_ratios_of_medians(self):
        group = self.group("decode", "bf16", 0)
        self.add(group, "source", [100.0, 1.0, 150.0, 1000.0, 149.0])
        self.add(group, "llama.cpp", [100.0, 90.0, 110.0], **peer_fields())
        line = self.only_line()
        self.assertEqual((line.ours, line.peer, line.ratio, line.met), (149.0, 100.0, 1.49, False))
        self.assertIn("| 149.0 tokens/s | 100.0 | 1.49x | >= 1.5x | no |", markdown_table([line]))

    def test_less_time_of_attention_is_a_larger_ratio(self):
        group = self.group("attention", "bf16")
        self.add(group, "converted", [2.0])
        self.add(group, "llama.cpp", [6.0], **peer_fields())
        self.assertEqual((self.only_line().ratio, self.only_line().met), (3.0, True))
        self.assertAlmostEqual(attention_milliseconds({0: 100.0, 16384: 50.0}, 2), 5.0)

    def test_less_memory_is_a_smaller_ratio(self):
        group = self.group("memory", "int8")
        self.add(group, "source", [300e6])
        self.add(group, "llama.cpp", [200e6], **peer_fields())
        self.assertEqual((self.only_line().ratio, self.only_line().met), (1.5, False))
        self.assertIn("| 300.0 MB | 200.0 | 150.0 % | <= 100 % | no |", markdown_table([self.only_line()]))

    def test_the_cache_is_compared_with_f16_whatever_ran(self):
        group = self.group("decode", "int8", CACHE_DEPTH)
        self.add(group, "converted", [50.0], cache_bytes_per_token=109.0)
        self.add(group, "llama.cpp", [10.0], **peer_fields(kv="q8_0", cache_bytes_per_token=530.0))
        self.assertEqual([line.work for line in table_lines(self.groups, self.rows)], ["decode"])
        self.add(self.group("decode", "bf16", 0), "llama.cpp", [10.0], **peer_fields())
        cache = table_lines(self.groups, self.rows)[-1]
        self.assertEqual((cache.work, cache.met), ("cache", True))
        self.assertAlmostEqual(cache.ratio, 0.109)

    def test_no_line_before_both_sides_ran(self):
        self.add(self.group("decode", "bf16", 0), "source", [1.0])
        self.assertEqual(table_lines(self.groups, self.rows), [])

    def test_the_report_says_what_disturbed_it(self):
        group = self.group("decode", "bf16", 0)
        self.add(group, "source", [1.0], other_cores=0.5)
        self.add(group, "llama.cpp", [1.0], **peer_fields())
        write_report(self.folder / "out.md", self.groups, self.rows, "./dev compare-llama-cpp out")
        text = (self.folder / "out.md").read_text(encoding="utf-8")
        for words in ("In 1 of 2 runs other processes", "commit abc", "2030-01-02", "flash attention on, f16 cache"):
            self.assertIn(words, text)


class ReadmeTest(unittest.TestCase):
    def test_only_what_lies_between_the_markers_changes(self):
        text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
        self.assertEqual(replace_part(text, "new"), f"before\n{BEGIN}\nnew\n{END}\nafter\n")
        for broken in ("none", f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"):
            with self.assertRaisesRegex(Failure, "markers|lines"):
                replace_part(broken, "new")

    def test_rows_with_an_aim_stand_in_it(self):
        with tempfile.TemporaryDirectory() as folder:
            rows = Rows(Path(folder) / "out.jsonl")
            groups = all_groups(FULL, Setup("model.gguf", 3, "int8"))[:2]  # depth 0 has an aim, depth 2,048 has none
            for group in groups:
                rows.add(made_up_row(group, "source", 0, 30.0))
                rows.add(made_up_row(group, "llama.cpp", 0, 10.0, **peer_fields(own_clock=0.99)))
            part = readme_part("docs/results/x", rows)
        self.assertEqual(part.count("\n| decode"), 1)
        self.assertIn("| 3.00x | >= 1.5x | yes |", part)
        for words in ("3 threads", "(docs/results/x.md)", "0.990 to 0.990"):
            self.assertIn(words, part)

    def test_the_readme_has_them(self):
        replace_part((ROOT / "README.md").read_text(encoding="utf-8"), "new")


class ChildTest(Sandbox):
    def test_json_and_memory(self):
        code = "import time; x = bytearray(50_000_000); time.sleep(0.5); print('{\"a\": 1}')"
        result, memory = run_json([sys.executable, "-c", code], 60, sample=True)
        self.assertEqual(result, {"a": 1})
        self.assertGreaterEqual(memory[1], 50_000_000)

    def test_failures_are_told_with_the_last_words(self):
        for code, words in [("import sys; sys.exit('so it is')", "exit code 1: so it is"), ("print('x')", "no JSON")]:
            with self.assertRaisesRegex(Failure, words):
                run_json([sys.executable, "-c", code], 60)
        with self.assertRaisesRegex(Failure, "no result after 0.2 s"):
            run_json([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)

    def test_an_environment_that_is_finished_is_kept(self):
        peer = Peer(self.folder)
        (self.folder / "venv").mkdir()
        (self.folder / "venv/stamp").write_text(build_key(), encoding="utf-8")
        peer.install(1)  # without pip
        self.assertFalse(peer.log.exists())

    def test_a_file_that_is_there_is_not_made_again_and_a_failure_leaves_none(self):
        peer = Peer(self.folder)
        (self.folder / "venv/bin").mkdir(parents=True)
        peer.python.symlink_to("/bin/false")
        with self.assertRaisesRegex(Failure, "exit code 1"):
            peer.wide("llama3-8b")
        path = self.folder / "models/llama3-8b.gguf"
        self.assertFalse(path.exists())
        path.write_bytes(b"")
        self.assertEqual(peer.wide("llama3-8b"), path)


class LoadTest(unittest.TestCase):
    def test_busy_is_all_but_idle_and_waiting(self):
        self.assertAlmostEqual(busy_seconds("cpu  1 2 3 1000 2000 4 5 6 0 0\ncpu0 9 9\n") * TICKS, 21)


if __name__ == "__main__":
    unittest.main()
