#!/usr/bin/env python3
"""Checks that each folder of src/ includes only what its line in src/CMakeLists.txt names.

A line is mha2mla_folder(<name> [TORCH] [FOLDERS a b ...] [LIBRARIES x y ...]). Checked, each failure as file:line:
- an #include "folder/file.h" is of the file's own folder or of one that its line names;
- the headers of LibTorch, PCRE2 and sentencepiece are included only in folders whose line names them, CLI11 only in cli;
- a folder names only folders above it in the list (so there is no cycle), and one without TORCH none with TORCH.
The folder cli puts the others together and may include all of them.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = "src/CMakeLists.txt"
TOP_FOLDER = "cli"
# Header prefix -> what a folder's line must name for it.
LIBRARY_HEADERS = {
    "torch/": "TORCH",
    "ATen/": "TORCH",
    "c10/": "TORCH",
    "pcre2": "PCRE2::PCRE2",
    "sentencepiece": "Sentencepiece::Sentencepiece",
    "zlib": "ZLIB::ZLIB",
    "CLI/": "CLI11::CLI11",
}


@dataclass
class Folder:
    name: str
    line: int
    folders: list[str] = field(default_factory=list)
    libraries: set[str] = field(default_factory=set)  # "TORCH" among them where the line says so


def parse_list(text):
    """The folders of src/CMakeLists.txt by name, in the order of the list."""
    text = re.sub(r"#[^\n]*", "", text)
    folders = {}
    for call in re.finditer(r"\bmha2mla_folder\(([^)]*)\)", text):
        name, *words = call.group(1).split()
        folder = Folder(name, line=text.count("\n", 0, call.start()) + 1)
        section = None
        for word in words:
            if word in ("FOLDERS", "LIBRARIES"):
                section = word
            elif word == "TORCH":
                folder.libraries.add("TORCH")
            elif section == "FOLDERS":
                folder.folders.append(word)
            else:
                folder.libraries.add(word)
        folders[name] = folder
    return folders


def check_list(folders):
    """What is wrong with the list itself."""
    above = {}
    for folder in folders.values():
        for other in folder.folders:
            if other not in above:
                yield f"{LIST}:{folder.line}: '{folder.name}' names '{other}', which is not above it in the list"
            elif "TORCH" in above[other].libraries and "TORCH" not in folder.libraries:
                yield f"{LIST}:{folder.line}: '{folder.name}' is free of torch and names '{other}', which is not"
        above[folder.name] = folder


def includes_of(text):
    """(line number, header, quoted) of each #include."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(2), match.group(1) == '"'


def library_violation(header, folder):
    for prefix, needed in LIBRARY_HEADERS.items():
        if header.startswith(prefix) and needed not in folder.libraries:
            return f"includes <{header}>, but its line in {LIST} does not name {needed}"
    return None


def folder_violation(header, folder, folders):
    target = header.split("/")[0] if "/" in header else None
    if target not in folders and target != TOP_FOLDER:
        return f'includes "{header}": write the path from src/, with the folder'
    if target != folder.name and target not in folder.folders:
        return f'includes "{header}", but its line in {LIST} does not name {target}'
    return None


def check_file(where, text, folder, folders):
    for number, header, quoted in includes_of(text):
        wrong = folder_violation(header, folder, folders) if quoted else library_violation(header, folder)
        if wrong:
            yield f"{where}:{number}: '{folder.name}' {wrong}"


def check(root):
    """All violations under root/src, and the number of files looked at."""
    folders = parse_list((root / LIST).read_text())
    violations = list(check_list(folders))
    every_folder = folders | {TOP_FOLDER: Folder(TOP_FOLDER, 0, list(folders), {"TORCH", "CLI11::CLI11"})}
    files = sorted(p for p in (root / "src").rglob("*") if p.suffix in (".h", ".cpp"))
    for path in files:
        where = path.relative_to(root)
        name = where.parts[1]
        if name not in every_folder:
            violations.append(f"{where}:1: the folder '{name}' is not in {LIST}")
            continue
        violations += check_file(where, path.read_text(), every_folder[name], folders)
    return violations, len(files)


def main():
    violations, count = check(ROOT)
    print("\n".join(violations) or f"{count} files include only what their folders may")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
