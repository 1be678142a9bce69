"""The lines of OUT.jsonl of tools/compare_llama_cpp.py: one for each run, as soon as it is made."""

import json
import os
import statistics
from pathlib import Path

from llama_cpp_setup import Failure


def key_of(group_key, side, number):
    return json.dumps([group_key, side, number], sort_keys=True)


class Rows:
    """The latest line of a run counts."""

    def __init__(self, path):
        self.path = Path(path)
        self.by_key = {}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[:text.rfind("\n") + 1]
        if whole != text:  # an interruption tore the last line
            self.path.write_text(whole, encoding="utf-8")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.keep(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise Failure(f"{path}:{number}: not a row of a comparison ({error}); --fresh starts anew") from error

    def keep(self, row):
        self.by_key[key_of(row["group"], row["side"], row["round"])] = row

    def add(self, row):
        self.keep(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def find(self, group, side, number):
        return self.by_key.get(key_of(group.key(), side, number))

    def all(self):
        return list(self.by_key.values())

    def of(self, group, side):
        """The rounds that there are."""
        found = (self.find(group, side, number) for number in range(group.rounds))
        return [row for row in found if row]

    def median(self, group, side, field="value"):
        """Over the rounds, or None before the first."""
        values = [row[field] for row in self.of(group, side)]
        return statistics.median(values) if values else None
