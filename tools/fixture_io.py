"""What every fixture script shares: compact JSON with floats of seven significant digits."""

import json
from pathlib import Path


def floats(values):
    """Numbers as short as fp32 allows: seven significant digits."""
    return [float(f"{value:.7g}") for value in values]


def write_json(path, content):
    """One line per top-level key, so that a changed fixture is readable in a diff."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1024:.1f} KiB")
