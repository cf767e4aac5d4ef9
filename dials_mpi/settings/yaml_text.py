"""YAML text: read it as plain data, with one-sentence errors, and write values."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import yaml

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.settings import numerals

LARGEST_FILE = 2**18  # bytes; a configuration has a few thousand


def read(file: str) -> str:
    """The text of a UTF-8 file. BadInput: it cannot be read, is too large or is not UTF-8."""
    name = printable(file)
    try:
        with open(file, "rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{name}: cannot be read ({reason}), give the path of a YAML file, or a name that python -m "
            "dials_mpi.configs lists"
        ) from None
    if len(data) > LARGEST_FILE:
        raise BadInput(f"{name}: is larger than {LARGEST_FILE} bytes, give the path of a YAML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: byte {error.start} is not UTF-8, save the file as UTF-8 text") from None


def parse(text: str, source: str) -> dict[Any, Any]:
    """The mapping in a YAML text; empty text is the empty mapping. BadInput names ``source``.

    Refused are duplicate keys, anchors, aliases and tags (settings do not need them), and numbers that YAML
    1.1 and other programs read differently (``numerals``).
    """
    content = parse_value(text, source)
    if content is None:
        return {}
    if not isinstance(content, dict):
        found = shown(content)
        raise BadInput(f"{source}: the top level is {found}, but must be a mapping: lines like 'key: value'")
    return content


def parse_value(text: str, source: str) -> Any:
    """The mapping, list or scalar in a YAML text. BadInput names ``source``."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        where, problem = f", line {line}", f"the character U+{error.character:04X} is not allowed in YAML"
    except RecursionError:
        where, problem = "", "lists or mappings are nested too deeply"
    except ValueError as error:  # a scalar that looks like a number or a date but is invalid
        where, problem = "", f"a value cannot be read ({error}), correct it or quote it"
    raise BadInput(f"{source}{where}: cannot be read as settings: {' '.join(problem.split())}")


def scalar(value: Any) -> str:
    """A value, or a tuple or mapping of values, as YAML on one line."""
    value = dict(value) if isinstance(value, dict) else value  # of a subclass, which PyYAML does not write
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=math.inf)
    return text.strip()[1:-1]


_AMBIGUOUS = "!odd"
"""The tag of scalars that are refused."""

_NUMERIC = "-+.0123456789"

_FORMS = (
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ("~", "n", "N", "")),
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("tag:yaml.org,2002:int", numerals.INTEGER, _NUMERIC),
    ("tag:yaml.org,2002:float", numerals.DECIMAL, _NUMERIC),
    ("tag:yaml.org,2002:float", re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), "-+."),
)
"""The types of plain scalars: tag, form, possible first characters; all other scalars are texts.

1e5 is a text as in PyYAML, because names may look like it; ``values`` converts it if the setting is a float.
"""

_REFUSED = (
    (numerals.LEADING_ZERO, "-+0"),
    (numerals.OTHER_BASE, "-+0"),
    (numerals.BASE_60, "-+0123456789"),
    (numerals.UNDERSCORES, _NUMERIC),
    (numerals.BOOLEAN, "yYnNoO"),
)


def _problem(node: yaml.ScalarNode, key: Any) -> str:
    """The message for a scalar of ``_REFUSED``; key: a node in a mapping, an index in a list."""
    found = numerals.ambiguity(node.value)
    assert found is not None, node.value
    text = node.value[: numerals.MAX_LENGTH]
    subject = f"{key.value} is {text}, which" if isinstance(key, yaml.ScalarNode) else text
    return f"{subject} {found.why}: {found.remedy}"


def _resolve(kind: Any, forms: Any) -> None:
    """Add forms to a loader or dumper, after the forms that it has."""
    for tag, form, first in forms:
        kind.add_implicit_resolver(tag, re.compile(rf"(?:{form.pattern})\Z"), list(first))


class _Loader(yaml.SafeLoader):
    """Loads plain data; raises for anchors, aliases, tags, duplicate keys and ambiguous numbers."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if event.anchor or getattr(event, "tag", None):
            problem = "anchors, aliases and tags are not supported, write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        if node.tag == _AMBIGUOUS:
            raise yaml.composer.ComposerError(None, None, _problem(node, index), node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {shown(key.value)} appears twice, keep one of the two"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that PyYAML's loader or the loader here would not read as texts."""


_Dumper.add_multi_representer(dict, _Dumper.represent_dict)  # also for classes derived from dict


for _kind in (_Loader, _Dumper):
    _resolve(_kind, (*_FORMS, *((_AMBIGUOUS, form, first) for form, first in _REFUSED)))
