#!/usr/bin/env python3
"""Proves that tools/check_layers.py can fail: each test lays out a small src/ with one fault."""

import tempfile
import unittest
from pathlib import Path

from check_layers import check

LIST = """# mha2mla_folder(not_this_one)
mha2mla_folder(core)
mha2mla_folder(data FOLDERS core
  LIBRARIES PCRE2::PCRE2)
mha2mla_folder(model TORCH FOLDERS core)
"""


class LayersTest(unittest.TestCase):
    def violations(self, files, folders=LIST):
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            for where, text in {"src/CMakeLists.txt": folders, **files}.items():
                (root / where).parent.mkdir(parents=True, exist_ok=True)
                (root / where).write_text(text)
            return check(root)[0]

    def test_accepts_what_the_list_names(self):
        files = {
            "src/core/a.h": '#include <vector>\n#include "core/b.h"\n',
            "src/data/a.cpp": '#include <pcre2.h>\n#include "core/a.h"\n// #include "model/a.h"\n',
            "src/model/a.h": "#include <torch/torch.h>\n",
            "src/cli/main.cpp": '#include <CLI/CLI.hpp>\n#include "model/a.h"\n#include "cli/b.h"\n',
        }
        self.assertEqual(self.violations(files), [])

    def test_folder_that_the_line_does_not_name(self):
        wrong = self.violations({"src/data/a.cpp": '#pragma once\n#include "model/a.h"\n'})
        self.assertEqual(len(wrong), 1)
        self.assertTrue(wrong[0].startswith("src/data/a.cpp:2: 'data' includes \"model/a.h\""), wrong)

    def test_nothing_includes_the_command_line(self):
        self.assertEqual(len(self.violations({"src/model/a.cpp": '#include "cli/a.h"\n'})), 1)

    def test_path_without_its_folder(self):
        self.assertEqual(len(self.violations({"src/core/a.cpp": '#include "a.h"\n'})), 1)

    def test_libraries_that_the_line_does_not_name(self):
        for header in ("torch/torch.h", "ATen/ATen.h", "c10/util/Half.h", "pcre2.h", "CLI/CLI.hpp"):
            self.assertEqual(len(self.violations({"src/core/a.h": f"#  include <{header}>\n"})), 1, header)

    def test_folder_that_the_list_lacks(self):
        self.assertEqual(len(self.violations({"src/extra/a.cpp": ""})), 1)

    def test_list_with_a_cycle_or_torch_below_a_torch_free_folder(self):
        self.assertIn("not above it", self.violations({}, "mha2mla_folder(a FOLDERS b)\nmha2mla_folder(b)\n")[0])
        torch = "mha2mla_folder(a TORCH)\n\nmha2mla_folder(b FOLDERS a)\n"
        self.assertIn("src/CMakeLists.txt:3", self.violations({}, torch)[0])


if __name__ == "__main__":
    unittest.main()
