"""The table (Markdown) and the plot (SVG, and PNG of it) of what tools/results.py measured."""

import os
import shutil
import subprocess
from pathlib import Path

import svg_plot

SOURCE_COLOR = "#444444"
METHOD_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # told apart by colour-blind readers
FORMAT_DASHES = ["6 4", "", "2 3", "10 3 2 3"]  # the first format, usually bf16, is dashed


def number(value):
    if value is None:
        return "none"
    return f"{value:.3f}" if value < 1 else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def lines_of(table):
    """The rows of one line of the table: those of one model and format. In order; a list of (point, row) each."""
    lines = {}
    for point, row in table:
        lines.setdefault((point.method, point.recovered, point.elements, point.format), []).append((point, row))
    return list(lines.values())


def bytes_cell(line):
    measured = [row for _, row in line if "error" not in row]
    return f"{measured[0]['bytes_per_token']:,}" if measured else ""


def quality_cell(line, measure):
    for point, row in line:
        if point.measure == measure:
            if "error" in row:
                return "failed"
            left_out = len(row.get("left_out", []))
            return number(row[measure.quality]) + (f" ({left_out} left out)" if left_out else "")
    return ""


def markdown_table(recipe, table):
    head = ["method", "elements", "cache", "bytes", *(measure.name for measure in recipe.measures)]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | --- |" + " ---: |" * (len(head) - 3)]
    for line in lines_of(table):
        point = line[0][0]
        cells = [point.series, str(point.elements), point.format, bytes_cell(line)]
        cells += [quality_cell(line, measure) for measure in recipe.measures]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def method_list(recipe):
    commands = [(method.name, ["convert", "--cache-ratio RATIO", *method.options]) for method in recipe.methods]
    recoveries = [(method.name, method.finetune) for method in recipe.methods if method.finetune]
    commands += [(f"{name}, recovered", ["finetune", f"--tokens {finetune.tokens}", *finetune.options])
                 for name, finetune in recoveries]
    lines = [f"- {name}: `{' '.join(words)}`" for name, words in commands]
    lines += [f"- {model.name}: `{model.path}`" for model in recipe.models]
    return "Methods:\n\n" + "\n".join(lines) if lines else ""


def task_list(recipe):
    lines = [f"- {task.name}: `eval {' '.join(task_words(task))}`, `{task.number}`" for task in recipe.tasks]
    return "Tasks, the more the better, and the number of the program's JSON:\n\n" + "\n".join(lines) if lines else ""


def task_words(task):
    return ["--task", task.task, "--data", task.path, *(["--limit", str(task.limit)] if task.limit else []), *task.options]


def failures(table):
    """One line for all rows of a model that failed alike."""
    counts = {}
    for point, row in table:
        if "error" in row:
            failure = (point.series, point.elements, row["error"])
            counts[failure] = counts.get(failure, 0) + 1
    lines = [f"- {name}, {elements} elements ({count}): {error}" for (name, elements, error), count in counts.items()]
    return "Rows that failed:\n\n" + "\n".join(lines) if lines else ""


def machine():
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{os.cpu_count()} cores of {line.partition(':')[2].strip()}"
    except OSError:
        pass
    return f"{os.cpu_count()} cores"


def origin(table, command):
    versions = sorted({row["version"] for _, row in table})
    days = sorted({row["time"][:10] for _, row in table})
    period = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (f"Made by `{command}` with {' and '.join(versions)} on {machine()}, {period}. "
            f"Each row stands in [rows.jsonl](rows.jsonl).")


def explanation(recipe):
    judged = f"Perplexity in windows of {recipe.window:,} tokens. " if recipe.texts else ""
    return (f"{judged}All rows in the native runtime (`eval --weights {recipe.weights} --kv-cache FORMAT`). Bytes are those "
            "of a token, all layers, by formula, scales included; the sinks of a converted model come on top, once a sequence.")


def curve_points(recipe, rows):
    """(bytes, quality, point), ascending in bytes, of what is plotted."""
    found = [(row["bytes_per_token"], row[recipe.plotted.quality], point) for point, row in rows
             if "error" not in row and point.measure == recipe.plotted]
    return sorted(found, key=lambda item: item[:2])


def converted_curves(recipe, rows, color, labelled):
    """A series' curves, one per format; labels on the last one where asked for."""
    for f, form in enumerate(recipe.formats):
        found = curve_points(recipe, [(point, row) for point, row in rows if point.format == form])
        labels = [str(point.elements) for _, _, point in found] if labelled and form == recipe.formats[-1] else []
        yield svg_plot.Curve(f"{rows[0][0].series}, {form} cache", [item[:2] for item in found], color,
                             FORMAT_DASHES[f % len(FORMAT_DASHES)], f == 0, labels)


def curves(recipe, table):
    """The source last, so that its curve lies on top."""
    by_series, result = {}, []
    for point, row in table:
        by_series.setdefault(point.series, []).append((point, row))
    source = curve_points(recipe, by_series.pop("source", []))
    for s, rows in enumerate(by_series.values()):
        result += converted_curves(recipe, rows, METHOD_COLORS[s % len(METHOD_COLORS)], s == 0)
    result.append(svg_plot.Curve("source, quantized cache", [item[:2] for item in source], SOURCE_COLOR,
                                 labels=[point.format for _, _, point in source]))
    return [curve for curve in result if curve.points]


def draw(recipe, table):
    """The plot, or None where nothing is to be drawn."""
    drawn = curves(recipe, table) if recipe.plotted else []
    if not drawn:
        return None
    better = "Up and left" if recipe.plotted.higher_is_better else "Down and left"
    subtitle = f"{better} is better. Numbers on a curve: cached elements a token and layer, or the source's format."
    words = svg_plot.Words(
        recipe.title, subtitle, "cache, bytes a token", f"{recipe.plotted.quality.replace('_', ' ')}, {recipe.plot}")
    return svg_plot.plot(words, drawn, svg_plot.LinearAxis if recipe.plotted.higher_is_better else svg_plot.Axis)


def write_png(folder):
    """plot.png of the plot.svg in `folder`. Returns why there is none, or nothing."""
    if not (folder / "plot.svg").exists():
        return ""
    if not shutil.which("rsvg-convert"):
        return "rsvg-convert is not installed (Debian package librsvg2-bin)"
    done = subprocess.run(["rsvg-convert", "--zoom", "2", "--output", folder / "plot.png", folder / "plot.svg"],
                          capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


def write_report(folder, recipe, table, command):
    """README.md and plot.svg in `folder` from (point, row) pairs in the order of the recipe."""
    picture = draw(recipe, table)
    if picture:
        (folder / "plot.svg").write_text(picture, encoding="utf-8")
    shown = f"![{recipe.plot} against bytes](plot.svg)" if picture else ""
    parts = [f"# {recipe.title}", recipe.description.strip(), shown, explanation(recipe),
             markdown_table(recipe, table), failures(table), task_list(recipe), method_list(recipe),
             origin(table, command)]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
