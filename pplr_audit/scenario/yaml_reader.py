"""YAML for scenarios: plain values with the line each one stands on; nothing that a file should not be able to do.

Of YAML 1.2 the core types only: no tags, no dates, no ``yes`` for true, and ``1e-4`` is a number. Keys are names and
stand once in a section; size, nesting and what aliases unfold to are bounded.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from pplr_audit.errors import InputError, visible

Loc = tuple[str | int, ...]
"""Place of a value: the fields' names from the outside in, and positions in lists."""

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000
MAX_NODES = 2 * MAX_VALUES
"""Keys are nodes too."""
MAX_DEPTH = 32
MAX_KEY = 200
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SIGNS = list("-+0123456789.")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half a pair can be written as an escape, and can be stored nowhere."""


@dataclass
class Document:
    """Plain values, and for each the place that a message about it names."""

    name: str
    values: Any
    lines: dict[Loc, int] = field(default_factory=dict)
    overrides: dict[Loc, str] = field(default_factory=dict)

    def place(self, loc: Sequence[str | int]) -> str:
        """``file, line 7`` or ``--set a.b=c``: where the value at ``loc``, or what is nearest around it, comes from."""
        for end in range(len(loc), 0, -1):
            part = tuple(loc[:end])
            if part in self.overrides:
                return self.overrides[part]
            if part in self.lines:
                return self.at(self.lines[part])
        return self.name

    def at(self, line: int) -> str:
        """``file, line 7``; an option is one line and needs no number."""
        return self.name if self.name.startswith("--") else f"{self.name}, line {line}"

    def is_overridden(self, loc: Loc) -> bool:
        """True if the value at ``loc`` comes from an override rather than from the file."""
        return any(loc[:end] in self.overrides for end in range(1, len(loc) + 1))


def parse(text: str, name: str) -> Document:
    """Read one YAML document. Raises InputError that names the file, the line and what is wrong."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES // 1000} kB; a scenario is a short file")
    document = Document(name, None)
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            document.values = _Builder(document).build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = document.at(mark.line + 1) if mark else name
        raise InputError(f"{place}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets through what Python says of a character or a version number that is too large.
        raise InputError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    return document


def override(document: Document, setting: str) -> None:
    """Apply one ``a.b=value`` to ``document`` (whose values are a section), making sections on the way.

    Raises InputError that names the setting: no ``=``, a value that is not YAML, a field below what is no section.
    """
    shown = f"--set {visible(setting)}"
    dotted, equals, text = setting.partition("=")
    loc = tuple(dotted.strip().split("."))
    if not equals or not all(loc):
        raise InputError(f"{shown}: not of the form a.b=value (example: --set data.clients=5)")
    if len(loc) > MAX_DEPTH:
        raise InputError(f"{shown[:60]}...: nested more than {MAX_DEPTH} deep")
    if _SURROGATE.search(dotted):
        raise InputError(f"{shown}: the name is not text")
    value = parse(text, shown).values
    section = document.values
    for depth, key in enumerate(loc[:-1], start=1):
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise InputError(f"{shown}: {'.'.join(loc[:depth])} is not a section that could hold {loc[depth]!r}")
    section[loc[-1]] = value
    # What stood below this place before stands there no longer.
    document.lines = {other: line for other, line in document.lines.items() if other[: len(loc)] != loc}
    document.overrides = {other: text for other, text in document.overrides.items() if other[: len(loc)] != loc}
    document.overrides[loc] = shown


def text_of(values: dict[str, Any]) -> str:
    """Plain values as YAML that any reader of YAML 1.1 or 1.2 takes for the same; keys keep their order."""
    dumped: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return dumped


class _Loader(yaml.SafeLoader):
    """Resolves the core types of YAML 1.2 and nothing else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (the name and form are PyYAML's)
    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH + 1:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=self.get_mark())
        if self.count > MAX_NODES:  # here and not only below: composing a megabyte of them takes a minute
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=self.get_mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 would misread, and what our reader takes for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # PyYAML writes some line ends (U+0085, U+2028) as they are, and then reads them as spaces.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _SIGNS)
_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _SIGNS)


class _Builder:
    """Turns YAML's nodes into plain values, counting them."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def build(self, node: yaml.Node, loc: Loc) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(loc, line)
        self._count += 1
        if self._count > MAX_VALUES:
            self._refuse(line, f"more than {MAX_VALUES} values (aliases unfolded)")
        if len(loc) > MAX_DEPTH:
            self._refuse(line, f"nested more than {MAX_DEPTH} deep")
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return {key: self.build(value, (*loc, key)) for key, value in self._pairs(node, loc)}
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*loc, position)) for position, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                return _SCALARS[node.tag](node.value)
            except (ValueError, KeyError):
                self._refuse(line, f"{node.value[:40]!r} cannot be read as {node.tag.rpartition(':')[2]}")
        return self._refuse(line, f"the tag {node.tag[:60]!r} is not accepted")

    def _pairs(self, node: yaml.MappingNode, loc: Loc) -> Iterator[tuple[str, yaml.Node]]:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or len(key.value) > MAX_KEY or _SURROGATE.search(key.value):
                self._refuse(line, "a key must be a name")
            if key.value in first:
                dotted = ".".join(map(str, (*loc, key.value)))
                self._refuse(line, f"{dotted} stands here a second time (first on line {first[key.value]})")
            first[key.value] = line
            self._document.lines[(*loc, key.value)] = line
            yield key.value, value

    def _refuse(self, line: int, problem: str) -> Any:
        raise InputError(f"{self._document.at(line)}: {problem}")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError
    return value


def _text(text: str) -> str:
    if _SURROGATE.search(text):
        raise ValueError
    return text


_SCALARS: dict[str, Any] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: {"true": True, "false": False}[text.lower()],
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": _float,
    "tag:yaml.org,2002:str": _text,
}
