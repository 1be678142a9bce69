"""Recipes of tools/results.py: TOML files that name what is converted, how small, and on which texts it is judged.

recipes/table.toml shows every field. A field that is missing, unknown or of another type is an error that names it.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path


class RecipeError(Exception):
    """What is wrong with a recipe, and where."""


@dataclass(frozen=True)
class Text:
    name: str
    path: str     # below the folder that --data names
    first: int    # index of the first window
    windows: int
    formats: tuple = ()  # measured on this text alone, of the recipe's; (): all


@dataclass(frozen=True)
class Method:
    name: str
    options: tuple    # of `mha2mla convert`
    statistics: str   # methods with the same word share one calibration; "": the method takes no --statistics


@dataclass(frozen=True)
class Recipe:
    title: str
    description: str
    window: int             # tokens
    weights: str            # type of the native runtime's weights: bf16 or f32
    sizes: tuple            # cached elements a token and layer
    formats: tuple          # of the converted models' cache, words of `eval --emulate-cache`
    source_formats: tuple   # of the source's cache
    texts: tuple
    methods: tuple
    plot_text: str          # name of the text whose perplexity is plotted; "": no plot


@dataclass(frozen=True)
class Point:
    """One row of the table."""
    method: Method | None   # None: the source model
    elements: int           # asked for; of the source: all
    format: str
    text: Text


class Fields:
    """A TOML table that is read field by field; close() refuses what nobody asked for."""

    def __init__(self, table, where):
        self.table, self.where = dict(table), where

    def take(self, name, kind, default=None):
        value = self.table.pop(name, default)
        if value is None:
            raise RecipeError(f"{self.where}: the field '{name}' is missing")
        # In Python true is an int, too.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RecipeError(f"{self.where}: '{name}' must be of type {kind.__name__}, not {value!r}")
        return value

    def count(self, name, least):
        value = self.take(name, int)
        if value < least:
            raise RecipeError(f"{self.where}: '{name}' must be at least {least}, not {value}")
        return value

    def items(self, name, kind, default=None):
        values = self.take(name, list, default)
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise RecipeError(f"{self.where}: '{name}' must hold {kind.__name__} items, not {value!r}")
        return tuple(values)

    def close(self):
        if self.table:
            raise RecipeError(f"{self.where}: unknown field '{next(iter(self.table))}'")


def read_text(table, where):
    fields = Fields(table, where)
    text = Text(fields.take("name", str), fields.take("path", str), fields.count("first", 0),
                fields.count("windows", 1), fields.items("formats", str, []))
    fields.close()
    return text


def read_method(table, where):
    fields = Fields(table, where)
    method = Method(fields.take("name", str), fields.items("options", str, []), fields.take("statistics", str, ""))
    fields.close()
    return method


def unique(names, where):
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{where}: '{name}' is there twice")


def check(recipe, where):
    unique([text.name for text in recipe.texts], f"{where}, texts")
    unique([method.name for method in recipe.methods], f"{where}, methods")
    if recipe.plot_text and recipe.plot_text not in [text.name for text in recipe.texts]:
        raise RecipeError(f"{where}: 'plot_text' names none of the texts: {recipe.plot_text!r}")
    for size in recipe.sizes:
        if size < 1:
            raise RecipeError(f"{where}: 'sizes' must be at least 1, not {size}")
    for text in recipe.texts:
        for form in text.formats:
            if form not in (*recipe.formats, *recipe.source_formats):
                raise RecipeError(f"{where}, texts: the recipe has no format '{form}' for '{text.name}'")
    for name in ("sizes", "formats", "source_formats", "texts"):
        unique(list(getattr(recipe, name)), f"{where}, {name}")
        if not getattr(recipe, name):
            raise RecipeError(f"{where}: '{name}' is empty")


def read_recipe(path):
    try:
        fields = Fields(tomllib.loads(Path(path).read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error
    recipe = Recipe(
        title=fields.take("title", str),
        description=fields.take("description", str, ""),
        window=fields.count("window", 2),
        weights=fields.take("weights", str, "bf16"),
        sizes=fields.items("sizes", int),
        formats=fields.items("formats", str),
        source_formats=fields.items("source_formats", str),
        texts=tuple(read_text(t, f"{path}, texts") for t in fields.items("texts", dict)),
        methods=tuple(read_method(m, f"{path}, methods") for m in fields.items("methods", dict, [])),
        plot_text=fields.take("plot_text", str, ""))
    fields.close()
    check(recipe, str(path))
    return recipe


def groups(recipe, source_elements):
    """The points in the order of the table, one list per model: the source, then each method at each size."""
    models = [(None, source_elements, recipe.source_formats)]
    models += [(method, size, recipe.formats) for method in recipe.methods for size in recipe.sizes]
    return [[Point(method, elements, form, text) for form in formats for text in recipe.texts
             if not text.formats or form in text.formats]
            for method, elements, formats in models]
