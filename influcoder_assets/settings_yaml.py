"""Reading one YAML file safely: its data, where each key stands, and keys that stand twice."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from influcoder_assets.settings_errors import Problem
from influcoder_lib.errors import SettingsError

Key = tuple[str, ...]

# YAML 1.1 takes 5e-5 for text; every other reader, and every user, takes it for a number.
_FLOAT_WITHOUT_DOT = r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$|^[-+]?[0-9][0-9_]*\.[0-9_]*[eE][0-9]+$"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, reading 5e-5 as a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(_FLOAT_WITHOUT_DOT), list("-+0123456789")
)


@dataclass(frozen=True)
class Document:
    """A settings file that has been read.

    `lines` gives the line (from 1) of every key, by its path from the top.
    """

    file: Path
    data: Mapping[Any, Any]
    lines: Mapping[Key, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read_yaml(file: Path) -> Document:
    """Read a YAML file that holds one mapping; an empty file is an empty mapping.

    Raises:
        SettingsError: the file cannot be read, is not UTF-8, is no YAML, or holds no mapping.
    """
    text = _read_text(file)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(file, error) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"This is no YAML that can be read: {' '.join(str(error).split())}", where=str(file)
        ) from None
    if not isinstance(data, dict):
        raise SettingsError(
            "The settings are no mapping of keys to values.",
            where=f"{file}, line 1",
            allowed="lines of the form `key: value`, such as `corpus:`",
        )
    lines: dict[Key, int] = {}
    problems: list[Problem] = []
    for key, line in _keys(node, (), frozenset()):
        if key in lines:
            problems.append(
                Problem(
                    key=key,
                    line=line,
                    what=f"the key is given twice, first in line {lines[key]}",
                    fix="keep one of the two",
                )
            )
        lines.setdefault(key, line)
    return Document(file, data, lines, tuple(problems))


def _read_text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise SettingsError(
            "There is no settings file.", where=str(file), fix="make one with `influcoder init DIR`"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The settings file cannot be read: {error.strerror}.", where=str(file)
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            "The settings file is not UTF-8 text.", where=f"{file}, line {line}"
        ) from None


def _syntax_error(file: Path, error: yaml.MarkedYAMLError) -> SettingsError:
    mark = error.problem_mark or error.context_mark
    where = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(file)
    what = ", ".join(part for part in (error.context, error.problem) if part)
    return SettingsError(f"This is no YAML that can be read: {what}.", where=where)


def _keys(
    node: yaml.Node | None, above: Key, open_nodes: frozenset[int]
) -> Iterator[tuple[Key, int]]:
    """Every key below a node with its line, in the order of the file, repeated ones included."""
    if id(node) in open_nodes:
        return
    inside = open_nodes | {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*above, str(key_node.value))
            yield key, key_node.start_mark.line + 1
            yield from _keys(value_node, key, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _keys(item, (*above, str(index)), inside)
