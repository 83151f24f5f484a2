"""Errors for the person who reads them: what was wrong, where, what is allowed, what to do.

Every error that a user's data, settings, models or disk can cause is one of these. A programming
mistake is not: it stays the plain Python exception that it is.
"""

from collections.abc import Sequence


class InflucoderError(Exception):
    """Base of all user-facing errors; its text is complete sentences, ready to be printed."""

    def __init__(self, problem: str, *, where: str = "", allowed: str = "", fix: str = "") -> None:
        self.problem = problem
        self.where = where
        self.allowed = allowed
        self.fix = fix
        parts = [("where", where), ("allowed", allowed), ("what to do", fix)]
        lines = [problem, *(f"  {name}: {text}" for name, text in parts if text)]
        super().__init__("\n".join(lines))


class SettingsError(InflucoderError):
    """A setting is unknown, of the wrong type, impossible, or does not fit the data."""


class DataError(InflucoderError):
    """A file, row or sample cannot be used."""


class ModelError(InflucoderError):
    """A model, tokenizer or adapter is missing, unsafe or unsupported."""


class StoreError(InflucoderError):
    """A stored artifact is missing, damaged or cannot be written."""


class DamageError(StoreError):
    """What is stored is not what was stored. That is recorded, so the plan asks for it anew."""


def shown(name: str) -> str:
    """A name that others have chosen, as it may stand in a message: what cannot be printed, or
    would break the line, is written as an escape."""
    return name if name.isprintable() else ascii(name)


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, at most so many, and how many there are beside: "a, b and 3 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
