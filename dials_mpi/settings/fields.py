"""Configurations as dataclasses of typed, bounded settings; independent of what the settings mean.

A configuration is a frozen dataclass whose fields are settings (``setting``), sections (``section``: a
nested dataclass) and at most one section whose key and dataclass depend on the value of a setting
(``section_chosen_by``). ``build`` makes it from a mapping and overrides, ``dump`` writes it as YAML.
A dataclass may raise BadInput for a combination of values in ``__post_init__``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, NamedTuple, TypeGuard, TypeVar, get_type_hints

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.settings.mappings import PlainMapping
from dials_mpi.settings.values import Given, checked
from dials_mpi.settings.yaml_text import parse_value, scalar

T = TypeVar("T")


def setting(
    default: Any,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
    newer: bool = False,
    affects_results: bool = True,
) -> Any:
    """A dataclass field with its documentation and its valid values (bounds are inclusive).

    about: one line: its meaning, unit and source in the paper. newer: the setting was added after files with
    digests existed, which imply its default; digests therefore omit the setting if it has its default.
    affects_results: a setting that does not can be changed when a run is looked at again; in digests it
    counts like any other.
    The field's type is bool, int, float, str, a tuple of these, whose bounds and choices apply to each
    element, or PlainMapping.
    """
    metadata = {"about": about, "low": low, "high": high, "choices": choices, "newer": newer}
    metadata["affects_results"] = affects_results
    return field(default=default, metadata=metadata)


def section(about: str) -> dict[str, Any]:
    """Metadata of a field that holds a nested dataclass of settings (its default: a default_factory)."""
    return {"about": about}


def section_chosen_by(
    selector: str, known: Sequence[str], find: Callable[[str], tuple[str, type]], about: str
) -> dict[str, Any]:
    """Metadata of a section whose key and type are ``find(value)`` for the value of the setting ``selector``.

    known: possible keys, to distinguish them from misspelt keys. ``find`` raises BadInput for an invalid
    value. At most one such section is allowed, at the top level.
    """
    return {"about": about, "selector": selector, "known": known, "find": find}


class Chosen(NamedTuple):
    """The section for a setting's value: the value, the section's key and its dataclass."""

    value: str
    key: str
    kind: type


def _is_section(kind: Any) -> TypeGuard[type[Any]]:
    """Whether the type of a field is a dataclass."""
    return isinstance(kind, type) and is_dataclass(kind)


# Building ------------------------------------------------------------------------------------------------


def build(kind: type[T], content: Mapping[Any, Any], source: str, overrides: Sequence[str] = ()) -> T:
    """The dataclass ``kind`` from a plain mapping and from overrides such as ``section.key=value``.

    source: the name of the mapping in messages (a file's name). overrides: their values are YAML; the last
    one for a key is used.
    BadInput: an unknown key, a wrong type, a value out of bounds, or a combination that the dataclass
    rejects.
    """
    replaced = dict(_parse_override(text) for text in overrides)
    chosen = _choose(kind, content, source, replaced)
    layout = _layout(kind, chosen)
    given = _flatten(kind, layout, content, source, chosen)
    for key, value in replaced.items():
        _require_setting(kind, layout, key, value.origin, chosen)
        given[key] = value
    values = {key: checked(key, layout[key], value) for key, value in given.items()}
    try:
        return _assemble(kind, chosen, values)
    except BadInput as error:
        raise BadInput(f"{source}{' with its overrides' if overrides else ''}: {error}") from None


def checked_setting(instance: Any, key: str, value: Any, origin: str) -> Any:
    """A value for the setting ``key`` of a configuration, converted to its type.

    origin: where the value comes from, for messages. Combinations with other settings are not checked.
    BadInput: there is no such setting, or the value has a wrong type or is out of bounds.
    """
    kind, chosen = type(instance), _chosen_in(instance)
    layout = _layout(kind, chosen)
    _require_setting(kind, layout, key, origin, chosen)
    return checked(key, layout[key], Given(value, origin))


def _parse_override(text: str) -> tuple[str, Given]:
    origin = f"override {shown(text)}"
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise BadInput(f"{origin}: is not of the form key=value, write for instance section.key=1")
    return key, Given(parse_value(value, origin), origin)


def _fields(kind: type, chosen: Chosen | None) -> Iterator[tuple[str, Field[Any], Any]]:
    """Key, field and type of each setting and section of a dataclass."""
    types = get_type_hints(kind)
    for entry in fields(kind):
        if chosen and "find" in entry.metadata:
            yield chosen.key, entry, chosen.kind
        else:
            yield entry.name, entry, types[entry.name]


def _variant(kind: type) -> Field[Any] | None:
    return next((entry for entry in fields(kind) if "find" in entry.metadata), None)


def _choose(
    kind: type, content: Mapping[Any, Any], source: str, replaced: Mapping[str, Given]
) -> Chosen | None:
    """The section that the selector's value chooses, which is needed before the other keys are checked."""
    variant = _variant(kind)
    if variant is None:
        return None
    selector = variant.metadata["selector"]
    entry = next(entry for entry in fields(kind) if entry.name == selector)
    given = replaced.get(selector, Given(content.get(selector, entry.default), source))
    value = checked(selector, (entry, str), given)
    try:
        chosen = Chosen(value, *variant.metadata["find"](value))
    except BadInput as error:
        raise BadInput(f"{given.origin}: {error}") from None
    if chosen.key in {entry.name for entry in fields(kind)}:
        raise BadInput(
            f"{given.origin}: {selector} is {shown(value)}, whose section {chosen.key} has the name of "
            "another section or setting: rename it"
        )
    return chosen


def _layout(kind: type, chosen: Chosen | None, prefix: str = "") -> dict[str, tuple[Field[Any], Any]]:
    """Field and type of every section and setting by dotted key, in the order of the dataclass."""
    layout = {}
    for key, entry, inner in _fields(kind, chosen):
        layout[prefix + key] = (entry, inner)
        if _is_section(inner):
            layout.update(_layout(inner, chosen, f"{prefix}{key}."))
    return layout


def _flatten(
    kind: type,
    layout: Mapping[str, tuple[Field[Any], Any]],
    content: Mapping[Any, Any],
    source: str,
    chosen: Chosen | None,
    prefix: str = "",
) -> dict[str, Given]:
    """The values of a nested mapping by dotted key; a section may be empty."""
    given: dict[str, Given] = {}
    for name, value in content.items():
        if isinstance(name, str) and "." in name and name in layout:
            raise BadInput(f"{source}: the key {shown(name)} is dotted, write it as a nested section")
        key = f"{prefix}{name}" if isinstance(name, str) and "." not in name else f"{prefix}{shown(name)}"
        if key not in layout:
            raise BadInput(f"{source}: {_unknown(kind, key, layout, chosen)}")
        if not _is_section(layout[key][1]):
            given[key] = Given(value, source)
        elif value is None or isinstance(value, dict):
            given.update(_flatten(kind, layout, value or {}, source, chosen, f"{key}."))
        else:
            raise BadInput(f"{source}: {key} is {shown(value)}, but is a section: {_use_keys(key, layout)}")
    return given


def _require_setting(
    kind: type, layout: Mapping[str, tuple[Field[Any], Any]], key: str, origin: str, chosen: Chosen | None
) -> None:
    if key not in layout:
        raise BadInput(f"{origin}: {_unknown(kind, key, layout, chosen)}")
    if _is_section(layout[key][1]):
        raise BadInput(f"{origin}: {key} is a section: {_use_keys(key, layout)}")


def _use_keys(key: str, layout: Mapping[str, Any]) -> str:
    return f"set its keys, such as {_members(key, layout)[0]}"


def _members(prefix: str, layout: Mapping[str, Any]) -> list[str]:
    """The keys directly in a section ('' is the top level)."""
    return [key for key in layout if key.rpartition(".")[0] == prefix]


def _unknown(kind: type, key: str, layout: Mapping[str, Any], chosen: Chosen | None) -> str:
    """The message for a key that does not exist."""
    variant = _variant(kind)
    if variant and chosen and key.partition(".")[0] in {*variant.metadata["known"]} - {chosen.key}:
        other, selector = key.partition(".")[0], variant.metadata["selector"]
        return f"{other} is read only with {selector}={other}: remove it, or change {selector}={chosen.value}"
    text = f"unknown key {printable(key) if len(key) <= 80 else shown(key)}"
    near = _nearest(key, layout)
    if near:
        return f"{text}, did you mean {' or '.join(near)}?"
    parent = key.rpartition(".")[0]
    if parent in layout and not _is_section(layout[parent][1]):
        return f"{text}, {parent} is not a section: set {_example(parent, key, layout)}"
    parent = parent if parent in layout else ""
    place = f"of {parent} " if parent else ""
    return f"{text}, the keys {place}are {', '.join(_members(parent, layout))}"


def _example(parent: str, key: str, layout: Mapping[str, Any]) -> str:
    """How to set a key that is no section."""
    if layout[parent][1] is not PlainMapping:
        return f"{parent} itself"
    return f"it as '{parent}={{{printable(key.rpartition('.')[2])[:40]}: 1}}'"


def _nearest(key: str, layout: Mapping[str, Any]) -> list[str]:
    """Known keys to suggest: those with the same name in other sections, else one with a similar name."""
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


def _assemble(kind: type[T], chosen: Chosen | None, values: Mapping[str, Any], prefix: str = "") -> T:
    arguments = {}
    for key, entry, inner in _fields(kind, chosen):
        if _is_section(inner):
            arguments[entry.name] = _assemble(inner, chosen, values, f"{prefix}{key}.")
        elif prefix + key in values:
            arguments[entry.name] = values[prefix + key]
    return kind(**arguments)


# Writing -------------------------------------------------------------------------------------------------


def flat(instance: Any) -> dict[str, Any]:
    """Every setting of a configuration by its dotted key."""
    return {key: value for key, _, value in _walk(instance) if not is_dataclass(value)}


def without_effect(instance: Any) -> set[str]:
    """The keys of the settings that are marked not to affect results."""
    return {key for key, entry, _ in _walk(instance) if not entry.metadata.get("affects_results", True)}


def newer_defaults(instance: Any) -> set[str]:
    """The keys of the settings that are marked ``newer`` and have their default."""
    return {
        key for key, entry, value in _walk(instance) if entry.metadata.get("newer") and value == entry.default
    }


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of keys and values, independent of their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def dump(instance: Any) -> str:
    """The configuration as YAML with a comment for every key; ``yaml_text.parse`` and ``build`` read it."""
    lines: list[str] = []
    for key, entry, value in _walk(instance):
        indent = "  " * key.count(".")
        if is_dataclass(value):
            lines.append("")
        lines += textwrap.wrap(
            _comment(entry.metadata), 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        name = key.rpartition(".")[2]
        lines.append(f"{indent}{name}:" if is_dataclass(value) else f"{indent}{name}: {scalar(value)}")
    return "\n".join(lines) + "\n"


def _walk(instance: Any) -> Iterator[tuple[str, Field[Any], Any]]:
    """Dotted key, field and value of every section and setting."""
    chosen = _chosen_in(instance)

    def visit(part: Any, prefix: str) -> Iterator[tuple[str, Field[Any], Any]]:
        for key, entry, _ in _fields(type(part), chosen):
            value = getattr(part, entry.name)
            yield prefix + key, entry, value
            if is_dataclass(value):
                yield from visit(value, f"{prefix}{key}.")

    return visit(instance, "")


def _chosen_in(instance: Any) -> Chosen | None:
    variant = _variant(type(instance))
    if variant is None:
        return None
    value = getattr(instance, variant.metadata["selector"])
    return Chosen(value, *variant.metadata["find"](value))


def _comment(metadata: Mapping[str, Any]) -> str:
    choices = metadata.get("choices")
    return metadata["about"] + (f" ({' | '.join(map(str, choices))})" if choices else "")
