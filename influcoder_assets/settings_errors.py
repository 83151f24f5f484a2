"""Rejected settings in sentences: which key, what was given, what is allowed, what was meant."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from influcoder_lib.errors import SettingsError

_SHOWN_CHARACTERS = 80
_BOUNDS = {
    annotated_types.Ge: ("at least", "ge"),
    annotated_types.Gt: ("more than", "gt"),
    annotated_types.Le: ("at most", "le"),
    annotated_types.Lt: ("less than", "lt"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the settings; `key` is the path from the top."""

    key: tuple[str, ...]
    what: str
    line: int | None = None
    allowed: str = ""
    fix: str = ""


def rejected(
    what: str, *, allowed: str = "", fix: str = "", key: str = "", value: Any = None
) -> PydanticCustomError:
    """The error that a validator raises.

    Args:
        what: what is wrong with the value.
        allowed: what is allowed instead; by default what the field's own constraints say.
        fix: what to do, where that is not obvious.
        key: dotted key below the field that is at fault, if it is not the field itself.
        value: the value of that key.
    """
    context = {"what": what, "allowed": allowed, "fix": fix, "key": key, "value": value}
    return PydanticCustomError("rejected", "{what}", context)


def settings_error(file: Path, problems: Sequence[Problem]) -> SettingsError:
    """One error that lists every problem of a file, in the order of its lines."""
    ordered = sorted(problems, key=lambda problem: (problem.line or 0, problem.key))
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    blocks = [f"The settings have {count}."]
    for problem in ordered:
        place = f" (line {problem.line})" if problem.line else ""
        blocks.append(f"  {'.'.join(problem.key)}{place}: {problem.what}")
        if problem.allowed:
            blocks.append(f"    allowed: {problem.allowed}")
        if problem.fix:
            blocks.append(f"    what to do: {problem.fix}")
    return SettingsError("\n".join(blocks), where=str(file))


def problems_of(
    error: ValidationError, model: type[BaseModel], lines: Mapping[tuple[str, ...], int]
) -> list[Problem]:
    """Every problem that pydantic found, in terms of the file."""
    found = []
    for details in error.errors(include_url=False):
        context = details.get("ctx", {})
        key, field, owner = _locate(details, model)
        below = tuple(context["key"].split(".")) if context.get("key") else ()
        line = _line((*key, *below), lines)
        found.append(_describe(details, (*key, *below), line, field, owner, model))
    return found


def _describe(
    details: ErrorDetails,
    key: tuple[str, ...],
    line: int | None,
    field: FieldInfo | None,
    owner: type[BaseModel],
    model: type[BaseModel],
) -> Problem:
    hidden = _is_hidden(owner, field)
    given = "what is given" if hidden else _show(details["input"])
    allowed = allowed_text(field) if field else ""
    context = details.get("ctx", {})
    match details["type"]:
        case "missing" if field:
            return Problem(key, f"this is required: {field.description}", line, allowed)
        case "extra_forbidden" | "invalid_key":
            keys = "one of " + ", ".join(owner.model_fields)
            fix = _meant(key[-1], owner, model)
            what = "there is no such key" + ("" if hidden else f" (its value is {given})")
            return Problem(key, what, line, keys, fix)
        case "rejected":
            value = context["value"] if context["key"] else details["input"]
            shown = value is not None and not hidden
            what = f"{_show(value)}: {context['what']}" if shown else context["what"]
            return Problem(key, what, line, context["allowed"] or allowed, context["fix"])
        case "union_tag_invalid":
            tags = [
                tag for section in _sections(field and field.annotation) for tag in _tags(section)
            ]
            tag = context["tag"]
            where = (*key, "source")
            what = f"{_show(tag)} is not allowed"
            return Problem(where, what, line, "one of " + ", ".join(tags), _closest(tag, tags))
    choices = _choices(field.annotation) if field else []
    fix = _closest(details["input"], choices)
    is_plain = isinstance(details["input"], bool | int | float | date)
    if details["type"] == "string_type" and is_plain and not hidden:
        fix = f'to mean the text, put it in quotes: "{given}"'
    return Problem(key, f"{given} is not allowed", line, allowed, fix)


def _is_hidden(owner: type[BaseModel], field: FieldInfo | None) -> bool:
    """Whether a value may be a password: it stands in a section of such, or in place of one."""
    sections = (owner, *_sections(field and field.annotation))
    return any(section.model_config.get("hide_input_in_errors") for section in sections)


def _locate(
    details: ErrorDetails, model: type[BaseModel]
) -> tuple[tuple[str, ...], FieldInfo | None, type[BaseModel]]:
    """The key of an error as it stands in the file, its field, and the section it stands in.

    Pydantic's own location also names the member of a union and marks a key of a mapping.
    """
    key: list[str] = []
    field: FieldInfo | None = None
    owner = model
    sections: Sequence[type[BaseModel]] = (model,)
    named = False
    for part in map(str, details["loc"]):
        if part == "[key]":
            continue
        if len(sections) > 1 and (tagged := _member(sections, part)):
            sections, owner = (tagged,), tagged
            continue
        key.append(part)
        if named:
            named = False
            continue
        owner = sections[0] if sections else owner
        field = next((s.model_fields[part] for s in sections if part in s.model_fields), field)
        if sections and all(part not in section.model_fields for section in sections):
            field = None
        named = field is not None and get_origin(field.annotation) is dict
        sections = _sections(field.annotation) if field else ()
    return tuple(key), field, owner


def _member(sections: Sequence[type[BaseModel]], tag: str) -> type[BaseModel] | None:
    for section in sections:
        source = section.model_fields.get("source")
        if source is not None and tag in get_args(source.annotation):
            return section
    return None


def _sections(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The sections that an annotation leads to: of a union or mapping, those of its members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(section for part in get_args(annotation) for section in _sections(part))


def allowed_text(field: FieldInfo) -> str:
    """What a setting may be, in words, from its own type and constraints."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    return _allowed_by(field.annotation, field.metadata)


def _allowed_by(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *more = get_args(annotation)
        return _allowed_by(base, [*metadata, *_flat(more)])
    if origin is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    if sections := _sections(annotation):
        names = dict.fromkeys(name for section in sections for name in section.model_fields)
        return "a section with the keys " + ", ".join(names)
    if type(None) in get_args(annotation):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return " or ".join(_allowed_by(part) for part in parts) + ", or null"
    nouns = {int: "a whole number", float: "a number", str: "text that is not blank"}
    if annotation in nouns:
        return ", ".join([nouns[annotation], *_bounds(metadata)])
    return "a path, absolute or relative to the home"


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item


def _bounds(metadata: Sequence[Any]) -> list[str]:
    found = []
    for item in metadata:
        if type(item) in _BOUNDS:
            words, name = _BOUNDS[type(item)]
            found.append(f"{words} {getattr(item, name)}")
    return found


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return []


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    source = section.model_fields.get("source")
    return get_args(source.annotation) if source is not None else ()


def _closest(given: Any, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(given).lower(), choices, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _meant(name: str, owner: type[BaseModel], model: type[BaseModel]) -> str:
    """The key that was probably meant: a similar one here, or the same name elsewhere."""
    if guess := _closest(name, list(owner.model_fields)):
        return guess
    elsewhere = [key for key, _ in settings_keys(model) if key.rsplit(".", 1)[-1] == name]
    return f"did you mean {' or '.join(elsewhere)}?" if elsewhere else ""


def settings_keys(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of the settings with its field; NAME stands for a behavior's name."""
    seen: set[str] = set()
    for name, field in model.model_fields.items():
        key = f"{above}{name}"
        yield key, field
        inner = f"{key}.NAME." if get_origin(field.annotation) is dict else f"{key}."
        for section in _sections(field.annotation):
            for lower, lower_field in settings_keys(section, inner):
                if lower not in seen:
                    seen.add(lower)
                    yield lower, lower_field


def _line(key: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> int | None:
    """Line of a key, or of the closest section above it that is in the file."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key)


def _show(value: Any) -> str:
    """A value as it would stand in the file, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
