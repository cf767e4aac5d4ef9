"""From text to dataclass: typed, bounded settings with one-sentence errors. Knows nothing of the project.

A configuration is a frozen dataclass whose fields are settings (``setting``), sections (``section``: a
nested dataclass) and at most one section whose key and dataclass another setting chooses
(``section_chosen_by``). ``read`` and ``build`` make it from YAML and overrides, ``dump`` turns it back.
A dataclass may refuse a combination of values by raising BadInput in ``__post_init__``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import reprlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from dials_mpi.errors import BadInput

T = TypeVar("T")

LARGEST_FILE = 2**18  # bytes; a configuration has a few thousand


def setting(
    default: Any,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its documentation and the values it may take (bounds are inclusive).

    about: one line: what it is, its unit, its source in the paper.
    The field's type is bool, int, float, str or a tuple of these; bounds and choices of a tuple hold for
    each of its elements.
    """
    metadata = {"about": about, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


def section(about: str) -> dict[str, Any]:
    """Metadata of a field that holds a nested dataclass of settings (its default: a default_factory)."""
    return {"about": about}


def section_chosen_by(selector: str, kinds: Mapping[str, type], about: str) -> dict[str, Any]:
    """Metadata of a section whose key is the value of the setting ``selector``, its type kinds[key].

    Only at the top level, and once.
    """
    return {"about": about, "selector": selector, "kinds": kinds}


# Reading -------------------------------------------------------------------------------------------------


def read(file: str) -> str:
    """The text of a UTF-8 file. BadInput: it cannot be read, is too large or is not UTF-8."""
    name = printable(file)
    try:
        with open(file, "rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{name}: cannot be read ({reason}), give the path of a YAML file") from None
    if len(data) > LARGEST_FILE:
        raise BadInput(f"{name}: is larger than {LARGEST_FILE} bytes, give the path of a YAML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: byte {error.start} is not UTF-8, save the file as UTF-8 text") from None


def parse(text: str, source: str) -> dict[Any, Any]:
    """The mapping in a YAML text; empty text is the empty mapping. BadInput names ``source``.

    Duplicate keys are refused, and so are anchors, aliases and tags, which settings have no use for.
    """
    content = _parse_yaml(text, source)
    if content is None:
        return {}
    if not isinstance(content, dict):
        found = _shown(content)
        raise BadInput(f"{source}: the top level is {found}, but must be a mapping: lines like 'key: value'")
    return content


class _Loader(yaml.SafeLoader):
    """YAML as data only: no anchors, no aliases, no tags, no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if event.anchor or getattr(event, "tag", None):
            problem = "anchors, aliases and tags are not supported, write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {_shown(key.value)} appears twice, keep one of the two"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, source: str) -> Any:
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
    except ValueError as error:  # a scalar that looks like a number or a date and is none
        where, problem = "", f"a value cannot be read ({error}), correct it or quote it"
    raise BadInput(f"{source}{where}: cannot be read as settings: {' '.join(problem.split())}")


# Building ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """A value as the user wrote it, and where."""

    value: Any
    origin: str


def build(kind: type[T], content: Mapping[Any, Any], source: str, overrides: Sequence[str] = ()) -> T:
    """The dataclass ``kind`` from a plain mapping and from overrides such as ``section.key=value``.

    source: what to call the mapping in a message (a file's name). overrides: their values are YAML; of two
    for the same key the later one holds.
    BadInput: an unknown key, a wrong type, a value out of bounds, or a combination that the dataclass
    itself refuses.
    """
    replaced = dict(_parse_override(text) for text in overrides)
    chosen = _choose(kind, content, source, replaced)
    layout = _layout(kind, chosen)
    given = _flatten(kind, layout, content, source, chosen)
    for key, value in replaced.items():
        _require_setting(kind, layout, key, value.origin, chosen)
        given[key] = value
    values = {key: _checked(key, layout[key], value) for key, value in given.items()}
    try:
        return _assemble(kind, chosen, values)
    except BadInput as error:
        raise BadInput(f"{source}{' with its overrides' if overrides else ''}: {error}") from None


def _parse_override(text: str) -> tuple[str, _Given]:
    origin = f"override {_shown(text)}"
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise BadInput(f"{origin}: is not of the form key=value, write for instance section.key=1")
    return key, _Given(_parse_yaml(value, origin), origin)


def _fields(kind: type, chosen: str | None) -> Iterator[tuple[str, Field[Any], Any]]:
    """Key, field and type of each setting and section of a dataclass."""
    types = get_type_hints(kind)
    for entry in fields(kind):
        if "kinds" in entry.metadata:
            yield str(chosen), entry, entry.metadata["kinds"][chosen]
        else:
            yield entry.name, entry, types[entry.name]


def _variant(kind: type) -> Field[Any] | None:
    return next((entry for entry in fields(kind) if "kinds" in entry.metadata), None)


def _choose(
    kind: type, content: Mapping[Any, Any], source: str, replaced: Mapping[str, _Given]
) -> str | None:
    """The selector's value, which must be known before the other keys can be looked at."""
    variant = _variant(kind)
    if variant is None:
        return None
    selector = variant.metadata["selector"]
    entry = next(entry for entry in fields(kind) if entry.name == selector)
    given = replaced.get(selector, _Given(content.get(selector, entry.default), source))
    value = _checked(selector, (entry, str), given)
    if value not in variant.metadata["kinds"]:
        known = ", ".join(variant.metadata["kinds"])
        raise BadInput(f"{given.origin}: {selector} is {_shown(value)}, but must be one of {known}")
    return value


def _layout(kind: type, chosen: str | None, prefix: str = "") -> dict[str, tuple[Field[Any], Any]]:
    """Field and type of every section and setting, by dotted key, in the order of the dataclass."""
    layout = {}
    for key, entry, inner in _fields(kind, chosen):
        layout[prefix + key] = (entry, inner)
        if is_dataclass(inner):
            layout.update(_layout(inner, chosen, f"{prefix}{key}."))
    return layout


def _flatten(
    kind: type,
    layout: Mapping[str, tuple[Field[Any], Any]],
    content: Mapping[Any, Any],
    source: str,
    chosen: str | None,
    prefix: str = "",
) -> dict[str, _Given]:
    """The values of a nested mapping by dotted key; an empty section is a section without values."""
    given: dict[str, _Given] = {}
    for name, value in content.items():
        if isinstance(name, str) and "." in name and name in layout:
            raise BadInput(f"{source}: the key {_shown(name)} is dotted, write it as a nested section")
        key = f"{prefix}{name}" if isinstance(name, str) and "." not in name else f"{prefix}{_shown(name)}"
        if key not in layout:
            raise BadInput(f"{source}: {_unknown(kind, key, layout, chosen)}")
        if not is_dataclass(layout[key][1]):
            given[key] = _Given(value, source)
        elif value is None or isinstance(value, dict):
            given.update(_flatten(kind, layout, value or {}, source, chosen, f"{key}."))
        else:
            raise BadInput(f"{source}: {key} is {_shown(value)}, but is a section: {_use_keys(key, layout)}")
    return given


def _require_setting(
    kind: type, layout: Mapping[str, tuple[Field[Any], Any]], key: str, origin: str, chosen: str | None
) -> None:
    if key not in layout:
        raise BadInput(f"{origin}: {_unknown(kind, key, layout, chosen)}")
    if is_dataclass(layout[key][1]):
        raise BadInput(f"{origin}: {key} is a section: {_use_keys(key, layout)}")


def _use_keys(key: str, layout: Mapping[str, Any]) -> str:
    return f"set its keys, such as {_members(key, layout)[0]}"


def _members(prefix: str, layout: Mapping[str, Any]) -> list[str]:
    """The keys directly under a section ('' is the top level)."""
    return [key for key in layout if key.rpartition(".")[0] == prefix]


def _unknown(kind: type, key: str, layout: Mapping[str, Any], chosen: str | None) -> str:
    """What to say of a key that does not exist."""
    variant = _variant(kind)
    if variant is not None and key.partition(".")[0] in variant.metadata["kinds"].keys() - {chosen}:
        other, selector = key.partition(".")[0], variant.metadata["selector"]
        return f"{other} is read only with {selector}={other}: remove it, or change {selector}={chosen}"
    text = f"unknown key {printable(key)}"
    near = _nearest(key, layout)
    if near:
        return f"{text}, did you mean {' or '.join(near)}?"
    parent = key.rpartition(".")[0]
    if parent in layout and not is_dataclass(layout[parent][1]):
        return f"{text}, {parent} is not a section: set {parent} itself"
    parent = parent if parent in layout else ""
    whose = f"of {parent} " if parent else ""
    return f"{text}, the keys {whose}are {', '.join(_members(parent, layout))}"


def _nearest(key: str, layout: Mapping[str, Any]) -> list[str]:
    """Known keys that may have been meant: the same name elsewhere, else one like it, here or elsewhere."""
    parent, _, name = key.rpartition(".")
    same = [known for known in layout if known.rpartition(".")[2] == name]
    if same:
        return same[:3]
    for group in (_members(parent, layout), list(layout)):
        names = {known.rpartition(".")[2]: known for known in reversed(group)}
        close = difflib.get_close_matches(name, names, n=1)
        if close:
            return [names[close[0]]]
    return [] if parent in layout else difflib.get_close_matches(parent, layout, n=1)


def _assemble(kind: type[T], chosen: str | None, values: Mapping[str, Any], prefix: str = "") -> T:
    arguments = {}
    for key, entry, inner in _fields(kind, chosen):
        if is_dataclass(inner):
            arguments[entry.name] = _assemble(inner, chosen, values, f"{prefix}{key}.")
        elif prefix + key in values:
            arguments[entry.name] = values[prefix + key]
    return kind(**arguments)


# Values --------------------------------------------------------------------------------------------------


def _checked(key: str, item: tuple[Field[Any], Any], given: _Given) -> Any:
    entry, kind = item
    try:
        return _convert(kind, entry.metadata, given.value)
    except (ValueError, OverflowError):
        must = f"{key} is {_shown(given.value)}, but must be {_expected(kind, entry.metadata)}"
        raise BadInput(f"{given.origin}: {must}{_hint(kind, given.value)}") from None


def _convert(kind: Any, metadata: Mapping[str, Any], value: Any) -> Any:
    """The value as the type ``kind``, within its bounds and choices; ValueError or OverflowError if not."""
    if get_origin(kind) is tuple:
        inner = _element_kinds(kind, value)
        return tuple(_convert(one, metadata, part) for one, part in zip(inner, value, strict=True))
    if kind is float and not isinstance(value, bool) and isinstance(value, int | str):
        value = float(value)  # PyYAML reads 1 as an int and 1e-4 as a string
    if type(value) is not kind:
        raise ValueError
    if kind is float and not math.isfinite(value):
        raise ValueError
    low, high, choices = (metadata.get(name) for name in ("low", "high", "choices"))
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError
    if choices is not None and value not in choices:
        raise ValueError
    return value


def _element_kinds(kind: Any, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    inner = get_args(kind)
    return inner[:1] * len(value) if inner[-1] is Ellipsis else inner


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _expected(kind: Any, metadata: Mapping[str, Any]) -> str:
    """What a value must be, for a message: 'a whole number from 1 to 9'."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a list of {count}values, each {_expected(inner[0], metadata)}"
    low, high, choices = (metadata.get(name) for name in ("low", "high", "choices"))
    if choices is not None:
        return f"one of {', '.join(map(str, choices))}"
    bounds = "" if low is None else f" from {low}" if high is not None else f" of at least {low}"
    if high is not None:
        bounds += f" to {high}" if bounds else f" of at most {high}"
    return _NAMES[kind] + bounds


def _hint(kind: Any, value: Any) -> str:
    """The remedy for a whole number written as 1e6."""
    if kind is not int or not isinstance(value, float | str):
        return ""
    try:
        number = float(value)
        return f" (write {int(number)})" if number == int(number) and abs(number) < 1e15 else ""
    except (ValueError, OverflowError):
        return ""


def _shown(value: Any) -> str:
    """A value for a message: short, printable, on one line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    try:
        return printable(short.repr(value))
    except ValueError:  # an int of thousands of digits
        return "a value too long to show"


def printable(text: str) -> str:
    """The text as it may stand in a one-line message."""
    return text if text.isprintable() else ascii(text)


# Writing -------------------------------------------------------------------------------------------------


def flat(instance: Any) -> dict[str, Any]:
    """Every setting of a configuration by its dotted key."""
    return {key: value for key, _, _, value in _walk(instance) if not is_dataclass(value)}


def digest(instance: Any) -> str:
    """SHA-256 (hex) of all keys and values; neither their order nor comments count."""
    return hashlib.sha256(json.dumps(flat(instance), sort_keys=True).encode()).hexdigest()


def dump(instance: Any) -> str:
    """The configuration as YAML, every key with a comment; ``parse`` and ``build`` read it back."""
    lines: list[str] = []
    for key, entry, kind, value in _walk(instance):
        indent = "  " * key.count(".")
        if is_dataclass(value):
            lines.append("")
        lines += textwrap.wrap(
            _comment(entry.metadata), 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        name = key.rpartition(".")[2]
        lines.append(f"{indent}{name}:" if is_dataclass(value) else f"{indent}{name}: {_scalar(kind, value)}")
    return "\n".join(lines) + "\n"


def _walk(instance: Any) -> Iterator[tuple[str, Field[Any], Any, Any]]:
    """Dotted key, field, type and value of every section and setting."""
    variant = _variant(type(instance))
    chosen = getattr(instance, variant.metadata["selector"]) if variant is not None else None

    def visit(part: Any, prefix: str) -> Iterator[tuple[str, Field[Any], Any, Any]]:
        for key, entry, kind in _fields(type(part), chosen):
            value = getattr(part, entry.name)
            yield prefix + key, entry, kind, value
            if is_dataclass(kind):
                yield from visit(value, f"{prefix}{key}.")

    return visit(instance, "")


def _comment(metadata: Mapping[str, Any]) -> str:
    choices = metadata.get("choices")
    return metadata["about"] + (f" ({' | '.join(map(str, choices))})" if choices else "")


def _scalar(kind: Any, value: Any) -> str:
    """A value as YAML on one line."""
    plain = list(value) if get_origin(kind) is tuple else value
    return yaml.safe_dump([plain], default_flow_style=True, width=math.inf).strip()[1:-1]
