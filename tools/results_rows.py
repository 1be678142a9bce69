"""What tools/results.py has measured already, and how long the rest will take."""

import json
import os
from collections import Counter

from results_recipe import Method, RecipeError


class Remaining:
    """Estimates the time left from what this run has measured: seconds a window, a task, a conversion, a recovery."""

    def __init__(self, pending):
        self.left = Counter()
        self.seconds, self.done = Counter(), Counter()
        for points in pending:
            self.left["conversion"] += isinstance(points[0].method, Method)
            self.left["recovery"] += any(point.recovered for point in points)
            for point in points:
                kind, amount = point.measure.work
                self.left[kind] += amount

    def add(self, kind, amount, seconds):
        self.left[kind] -= amount
        self.seconds[kind] += seconds
        self.done[kind] += amount

    def skip(self, points):
        for point in points:
            kind, amount = point.measure.work
            self.left[kind] -= amount

    def text(self):
        left, word = 0.0, "about"
        for kind, amount in (+self.left).items():
            if self.done[kind]:
                left += amount * self.seconds[kind] / self.done[kind]
            else:
                word = "at least"
        return f"{word} {max(1, round(left / 60))} min left" if +self.left else "done"


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
