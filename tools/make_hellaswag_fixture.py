#!/usr/bin/env python3
"""Makes tests/fixtures/eval/hellaswag_rows.json: what lm-evaluation-harness makes of HellaSwag's rows as the hub has them.

Needs lm-eval 0.4.13. Usage: make_hellaswag_fixture.py [OUT]
`rows` are our own, with the benchmark's fields and the traces of WikiHow that it is full of; `query`, `choices` and `gold`,
an item a row, are what the harness's process_docs gives.
"""

import sys
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset
from lm_eval.tasks.hellaswag.utils import process_docs

from fixture_io import write_json


def row(label, ctx_a, ctx_b, endings, activity="Baking bread"):
    return {"activity_label": activity, "ctx_a": ctx_a, "ctx_b": ctx_b, "endings": endings, "label": str(label)}


ROWS = [
    row(0, "A man kneads dough.", "he", ["waits an hour.", "sings.", "sleeps.", "runs."]),
    row(3, "[header] How to bake [title] Mix the flour. [step] Add water.", "",
        ["[step] Knead.  Rest it.", " [title] Bake it. [step] Then eat.", "[substeps] Cut; eat.", "Leave it [unclosed"],
        "Food and Entertaining"),
    row(1, "  Two women  stand in a café.  ", "THE OVEN is HOT", ["they wait", "they   leave", "[a][b] no", "x [ y ] z"]),
    row(2, "A row with [brackets\nover lines] stays.", "4TH word", ["one [\n] two", "", "  ", "tab\t[gone]\tend"]),
    row(0, "Two  [title]  blanks   around.", "x [title] Y", ["[", "]", "[]", " [title]"], "  Sports  "),
]


def main():
    root = Path(__file__).resolve().parent.parent
    out = sys.argv[1] if len(sys.argv) > 1 else root / "tests/fixtures/eval/hellaswag_rows.json"
    made = process_docs(Dataset.from_list(ROWS))
    columns = {name: list(made[name]) for name in ("query", "choices", "gold")}
    write_json(out, {"lm_eval": version("lm-eval"), "rows": ROWS, **columns})


if __name__ == "__main__":
    main()
