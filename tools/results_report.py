"""The table (Markdown) and the plot (SVG) of what tools/results.py measured."""

import os
from pathlib import Path

import svg_plot

SOURCE_COLOR = "#444444"
METHOD_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # told apart by colour-blind readers
FORMAT_DASHES = ["6 4", "", "2 3", "10 3 2 3"]  # the first format, usually bf16, is dashed


def number(value):
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def name_of(method):
    return method.name if method else "source"


def lines_of(table):
    """The rows of one line of the table: those of one model and format. In order; a list of (point, row) each."""
    lines = {}
    for point, row in table:
        lines.setdefault((point.method, point.elements, point.format), []).append((point, row))
    return list(lines.values())


def bytes_cell(line):
    measured = [row for _, row in line if "error" not in row]
    return f"{measured[0]['bytes_per_token_and_layer']:,.4g}" if measured else ""


def perplexity_cell(line, text):
    for point, row in line:
        if point.text == text:
            return "failed" if "error" in row else number(row["perplexity"])
    return ""


def markdown_table(recipe, table):
    head = ["method", "elements", "cache", "bytes", *(text.name for text in recipe.texts)]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | --- |" + " ---: |" * (len(head) - 3)]
    for line in lines_of(table):
        point = line[0][0]
        cells = [name_of(point.method), str(point.elements), point.format, bytes_cell(line)]
        cells += [perplexity_cell(line, text) for text in recipe.texts]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def method_list(recipe):
    commands = [(m.name, " ".join(["convert --cache-ratio RATIO", *m.options])) for m in recipe.methods]
    return "Methods:\n\n" + "\n".join(f"- {name}: `{command}`" for name, command in commands)


def failures(table):
    """One line for all rows of a model that failed alike."""
    counts = {}
    for point, row in table:
        if "error" in row:
            failure = (name_of(point.method), point.elements, row["error"])
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


def origin(recipe, table, command):
    versions = sorted({row["version"] for _, row in table})
    days = sorted({row["time"][:10] for _, row in table})
    period = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (f"Made by `{command}` with {' and '.join(versions)} on {machine()}, {period}. "
            f"Each row stands in [rows.jsonl](rows.jsonl).")


def explanation(recipe):
    others = (", the other formats in the LibTorch module (`eval --engine workshop --weights f32 --emulate-cache FORMAT`)"
              if {*recipe.formats, *recipe.source_formats} != {"bf16"} else "")
    return (f"Perplexity in windows of {recipe.window:,} tokens: `bf16` in the native runtime (`eval --engine native "
            f"--weights {recipe.weights}`){others}. Bytes are those of a token and layer, by formula, "
            "scales included; the sinks of a converted model come on top, once a sequence.")


def curve_points(table, recipe, method, form):
    """(bytes, perplexity, point), ascending in bytes; of all formats where `form` is None."""
    found = [(row["bytes_per_token_and_layer"], row["perplexity"], point) for point, row in table
             if "error" not in row and point.method == method and point.text.name == recipe.plot_text
             and form in (None, point.format)]
    return sorted(found, key=lambda item: item[:2])


def curves(recipe, table):
    """Methods first, so that the source's curve lies on top of them."""
    result = []
    for m, method in enumerate(recipe.methods):
        for f, form in enumerate(recipe.formats):
            found = curve_points(table, recipe, method, form)
            labels = [str(point.elements) for _, _, point in found] if m == 0 and form == recipe.formats[-1] else []
            result.append(svg_plot.Curve(f"{method.name}, {form} cache", [item[:2] for item in found],
                                         METHOD_COLORS[m % len(METHOD_COLORS)], FORMAT_DASHES[f % len(FORMAT_DASHES)],
                                         f == 0, labels))
    found = curve_points(table, recipe, None, None)
    result.append(svg_plot.Curve("source, quantized cache", [item[:2] for item in found], SOURCE_COLOR,
                                 labels=[point.format for _, _, point in found]))
    return [curve for curve in result if curve.points]


def draw(recipe, table):
    """The plot, or None where nothing is to be drawn."""
    drawn = curves(recipe, table)
    if not recipe.plot_text or not drawn:
        return None
    subtitle = "Down and left is better. Numbers on a curve: cached elements a token and layer, or the source's format."
    y_title = f"perplexity, {recipe.plot_text}"
    return svg_plot.plot(recipe.title, subtitle, "cache, bytes a token and layer", y_title, drawn)


def write_report(folder, recipe, table, command):
    """README.md and plot.svg in `folder` from (point, row) pairs in the order of the recipe."""
    picture = draw(recipe, table)
    if picture:
        (folder / "plot.svg").write_text(picture, encoding="utf-8")
    shown = "![perplexity against bytes](plot.svg)" if picture else ""
    parts = [f"# {recipe.title}", recipe.description.strip(), shown, explanation(recipe),
             markdown_table(recipe, table), failures(table), method_list(recipe), origin(recipe, table, command)]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
