"""Recipes of tools/results.py: TOML files that name what is converted, how small, and what it is judged by.

recipes/table.toml shows the fields for perplexity, recipes/smollm2.toml those for tasks and recovery. A field that is
missing, unknown or of another type is an error that names it.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path


class RecipeError(Exception):
    """What is wrong with a recipe, and where."""


@dataclass(frozen=True)
class Text:
    """Perplexity on windows of a text."""
    name: str
    path: str     # below the folder that --data names
    first: int    # index of the first window
    windows: int
    formats: tuple = ()  # measured on this text alone, of the recipe's; (): all

    number = quality = "perplexity"
    higher_is_better = False
    work = property(lambda self: ("windows", self.windows))  # what a measurement takes, to estimate the time that is left

    def key(self):
        return {"text": self.path, "first": self.first, "windows": self.windows}


@dataclass(frozen=True)
class Task:
    """A benchmark: `eval --task`."""
    name: str
    task: str
    path: str     # of --data, below the folder that --data of results.py names
    limit: int    # of `eval --limit`; 0: all
    options: tuple
    number: str   # which number of the program's JSON, such as "accuracy"; "tasks.accuracy": the mean over a list
    formats: tuple = ()

    higher_is_better = True
    quality = property(lambda self: self.number.rpartition(".")[2])
    work = property(lambda self: (self.name, 1))

    def key(self):
        return {"task": self.task, "data": self.path, "limit": self.limit, "options": list(self.options),
                "quality": self.number}


@dataclass(frozen=True)
class Recovery:
    """What `mha2mla finetune` does to a converted model."""
    tokens: int
    options: tuple

    def key(self):
        return {"tokens": self.tokens, "options": list(self.options)}


@dataclass(frozen=True)
class Method:
    name: str
    options: tuple    # of `mha2mla convert`
    statistics: str   # methods with the same word share one calibration; "": the method takes no --statistics
    finetune: Recovery | None = None  # each converted model is measured before and after it

    def key(self):
        return {"options": list(self.options)}


@dataclass(frozen=True)
class ReadyModel:
    """A model that lies there converted. Those with the same name share a curve."""
    name: str
    path: str  # as the working directory sees it

    def key(self):
        return {"path": self.path}


@dataclass(frozen=True)
class Recipe:
    title: str
    description: str
    window: int             # tokens
    weights: str            # type of the native runtime's weights: bf16 or f32
    sizes: tuple            # cached elements a token and layer
    formats: tuple          # of the converted models' cache, words of `eval --kv-cache`
    source_formats: tuple   # of the source's cache
    texts: tuple
    tasks: tuple
    methods: tuple
    models: tuple
    plot: str               # name of the text or task whose quality is plotted; "": no plot

    @property
    def measures(self):
        return (*self.texts, *self.tasks)

    @property
    def plotted(self):
        return next((measure for measure in self.measures if measure.name == self.plot), None)


@dataclass(frozen=True)
class Point:
    """One measurement: a cell of the table."""
    method: Method | ReadyModel | None  # None: the source model
    elements: int                       # asked for; of the source and a ready model: all
    format: str
    measure: Text | Task
    recovered: bool = False

    @property
    def series(self):
        """The name of its rows and of its curve."""
        return f"{self.method.name}, recovered" if self.recovered else self.method.name if self.method else "source"

    def model_key(self):
        """What is done to the source model."""
        made = {"method": self.series, **(self.method.key() if self.method else {"options": []}),
                "elements": self.elements}
        return {**made, "finetune": self.method.finetune.key()} if self.recovered else made


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


def read_task(table, where):
    fields = Fields(table, where)
    task = Task(fields.take("name", str), fields.take("task", str), fields.take("data", str),
                fields.count("limit", 0), fields.items("options", str, []), fields.take("quality", str),
                fields.items("formats", str, []))
    fields.close()
    return task


def read_recovery(table, where):
    fields = Fields(table, where)
    recovery = Recovery(fields.count("tokens", 1), fields.items("options", str, []))
    fields.close()
    return recovery


def read_method(table, where):
    fields = Fields(table, where)
    finetune = read_recovery(fields.take("finetune", dict), f"{where}, finetune") if "finetune" in table else None
    method = Method(fields.take("name", str), fields.items("options", str, []), fields.take("statistics", str, ""),
                    finetune)
    fields.close()
    return method


def read_model(table, where):
    fields = Fields(table, where)
    model = ReadyModel(fields.take("name", str), fields.take("path", str))
    fields.close()
    return model


def unique(names, where):
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{where}: '{name}' is there twice")


def check_names(recipe, where):
    unique([measure.name for measure in recipe.measures], f"{where}, texts and tasks")
    unique([method.name for method in recipe.methods], f"{where}, methods")
    unique([model.path for model in recipe.models], f"{where}, models")
    for model in recipe.models:
        unique([model.name, "source", *(method.name for method in recipe.methods)], f"{where}, models and methods")
    if recipe.plot and not recipe.plotted:
        raise RecipeError(f"{where}: 'plot' names none of the texts and tasks: {recipe.plot!r}")
    for measure in recipe.measures:
        for form in measure.formats:
            if form not in (*recipe.formats, *recipe.source_formats):
                raise RecipeError(f"{where}: the recipe has no format '{form}' for '{measure.name}'")


def check(recipe, where):
    check_names(recipe, where)
    for size in recipe.sizes:
        if size < 1:
            raise RecipeError(f"{where}: 'sizes' must be at least 1, not {size}")
    for name in ("sizes", "formats", "source_formats"):
        unique(list(getattr(recipe, name)), f"{where}, {name}")
    for name in ("formats", "source_formats", *(["sizes"] if recipe.methods else [])):
        if not getattr(recipe, name):
            raise RecipeError(f"{where}: '{name}' is empty")
    if not recipe.measures:
        raise RecipeError(f"{where}: there is neither a text nor a task")


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
        sizes=fields.items("sizes", int, []),
        formats=fields.items("formats", str),
        source_formats=fields.items("source_formats", str),
        texts=tuple(read_text(t, f"{path}, texts") for t in fields.items("texts", dict, [])),
        tasks=tuple(read_task(t, f"{path}, tasks") for t in fields.items("tasks", dict, [])),
        methods=tuple(read_method(m, f"{path}, methods") for m in fields.items("methods", dict, [])),
        models=tuple(read_model(m, f"{path}, models") for m in fields.items("models", dict, [])),
        plot=fields.take("plot", str, ""))
    fields.close()
    check(recipe, str(path))
    return recipe


def groups(recipe, source_elements, ready_elements=()):
    """The points in the order of the table, one list per model: the source, the ready models, each method at each size
    (what recovery makes of it stands in the same list). `ready_elements`: as many as the recipe has models."""
    models = [(None, source_elements, recipe.source_formats)]
    models += [(model, elements, recipe.formats) for model, elements in zip(recipe.models, ready_elements)]
    models += [(method, size, recipe.formats) for method in recipe.methods for size in recipe.sizes]
    return [[Point(method, elements, form, measure, recovered)
             for recovered in ((False, True) if getattr(method, "finetune", None) else (False,))
             for form in formats for measure in recipe.measures if not measure.formats or form in measure.formats]
            for method, elements, formats in models]
