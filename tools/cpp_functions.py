"""Finds the functions of a C++ file: name, lines, number of parameters.

A scanner, not a parser: it blanks comments, literals and preprocessor lines, then follows braces. At namespace and class
scope the text before a brace (the head) tells a function from a type, a namespace or an initializer. It expects formatted
code without macros that open braces.
"""

import re
from dataclasses import dataclass


@dataclass
class Function:
    name: str
    line: int  # of its signature
    lines: int  # from the signature to the closing brace
    parameters: int
    has_body: bool


def _blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


_LITERALS = re.compile(
    r'R"(?P<tag>[^()\\ \n]{0,16})\(.*?\)(?P=tag)"'  # raw strings
    r"|//[^\n]*|/\*.*?\*/"  # comments
    r'|"(?:\\.|[^"\\\n])*"'  # strings
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'",  # characters; not the separators of 20'000
    re.DOTALL,
)
_PREPROCESSOR = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)


_LABELS = re.compile(r"\s*(?:(?:public|private|protected)\s*:(?!:)\s*)*")


def blank_literals(text):
    """The text with comments, literals and preprocessor lines as spaces; every line keeps its place."""
    return _PREPROCESSOR.sub(_blank, _LITERALS.sub(_blank, text))


def _matching(text, start, opening, closing):
    """Index after the bracket that closes the one at `start` (the end of the text where none does)."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] == opening:
            depth += 1
        elif text[i] == closing:
            depth -= 1
            if depth == 0:
                return i + 1
    return len(text)


def _matching_angle(text, start):
    depth = 0
    for i in range(start, len(text)):
        if text[i] == "<":
            depth += 1
        elif text[i] == ">" and text[i - 1] != "-":
            depth -= 1
            if depth == 0:
                return i + 1
    return len(text)


def _strip_prefixes(head):
    """The head without template headers, requires clauses, attributes and labels like `public:`."""
    head = re.sub(r"\b(public|private|protected)\s*:(?!:)", " ", head)
    head = re.sub(r"\[\[.*?\]\]", " ", head, flags=re.DOTALL)
    while match := re.search(r"\b(?:template\s*(?=<)|(?:requires|decltype|alignas|__attribute__|explicit)\s*(?=\())", head):
        close = _matching_angle(head, match.end()) if head[match.end()] == "<" else _matching(head, match.end(), "(", ")")
        head = head[: match.start()] + " " + head[close:]
    head = re.sub(r"\boperator\s*\(\s*\)", "operator_call", head)
    return re.sub(r"\boperator\s*(?:[^\w\s(]+|\"\"\s*\w+)", "operator_symbol", head)


def _angle_free_find(head, wanted):
    """Index of the first character of `wanted` outside angle brackets, or -1."""
    i = 0
    while i < len(head):
        if head[i] in wanted:
            return i
        i = _matching_angle(head, i) if head[i] == "<" else i + 1
    return -1


def _count_parameters(parameters):
    depth, count = 0, 1
    for i, c in enumerate(parameters):
        if c in "(<[{":
            depth += 1
        elif c in ")]}" or (c == ">" and parameters[i - 1] != "-"):
            depth -= 1
        elif c == "," and depth == 0:
            count += 1
    return 0 if parameters.strip() in ("", "void") else count


def _signature(head):
    """(name, number of parameters) where the head is a function's, else None."""
    head = _strip_prefixes(head)
    at = _angle_free_find(head, "(=")
    if at < 0 or head[at] == "=" or re.match(r"\s*(using|typedef|static_assert)\b", head):
        return None
    if pointer := re.match(r"\(\s*\*\s*(\w+)\s*\)\s*\(", head[at:]):  # a member that points to a function
        at += pointer.end() - 1
        return pointer.group(1), _count_parameters(head[at + 1 : _matching(head, at, "(", ")") - 1])
    name = re.search(r"([~\w]+(?:\s*::\s*[~\w]+)*)\s*$", head[:at])
    if not name or re.fullmatch(r"[A-Z][A-Z0-9_]*_P|EXPECT_\w+", name.group(1)):
        return None
    parameters = head[at + 1 : _matching(head, at, "(", ")") - 1]
    label = name.group(1)
    if re.fullmatch(r"TEST|TEST_[FP]|TYPED_TEST|BENCHMARK\w*", label):
        label = f"{label}({' '.join(parameters.split())})"
    return label, _count_parameters(parameters)


def _without_angles(text):
    at = text.find("<")
    return text if at < 0 else text[:at] + _without_angles(text[_matching_angle(text, at) :])


def _opens_scope(head):
    """Whether the brace after this head opens a namespace or a class, whose insides are scanned, too."""
    head = _without_angles(_strip_prefixes(head))
    if re.search(r"\bnamespace\b|\bextern\s*$", head):
        return True
    return bool(re.search(r"\b(class|struct|union)\b", head)) and not re.search(r"[(=]|\benum\b", head)


def _is_member_initializer(head):
    """Whether the brace after this head initializes a member in a constructor's list: `: a_(a), b_` {."""
    return bool(re.search(r"\)[\w\s]*(?<!:):(?!:)", head)) and bool(re.search(r"[\w>]\s*$", head))


class _Scanner:
    def __init__(self, text):
        self.text = blank_literals(text)
        self.functions = []
        self.head_start = 0  # where the statement at hand begins
        self.position = 0

    def head(self):
        """The statement at hand so far."""
        return self.text[self.head_start : self.position]

    def add(self, signature, end, has_body):
        start = self.head_start + _LABELS.match(self.head()).end()
        first, last = (self.text.count("\n", 0, at) + 1 for at in (start, end - 1))
        self.functions.append(Function(signature[0], first, last - first + 1, signature[1], has_body))

    def new_statement(self, position):
        self.position = self.head_start = position

    def open_brace(self):
        head = self.head()
        end = _matching(self.text, self.position, "{", "}")
        if _opens_scope(head):
            self.new_statement(self.position + 1)
        elif head.count("(") > head.count(")") or _is_member_initializer(head):
            self.position = end  # a braced value inside the head
        elif signature := _signature(head):
            self.add(signature, end, has_body=True)
            self.new_statement(end)
        else:
            self.position = end  # an initializer or an enumeration, up to its semicolon

    def semicolon(self):
        signature = _signature(self.head())
        if signature and not re.search(r"\}\s*$", self.head()):
            self.add((signature[0], signature[1]), self.position, has_body=False)
        self.new_statement(self.position + 1)

    def run(self):
        while self.position < len(self.text):
            c = self.text[self.position]
            if c == "{":
                self.open_brace()
            elif c == ";":
                self.semicolon()
            elif c == "}":
                self.new_statement(self.position + 1)
            else:
                self.position += 1
        return self.functions


def scan(text):
    """The functions of a file, in order: definitions, and declarations (for their parameters)."""
    return _Scanner(text).run()
