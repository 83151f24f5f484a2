"""The sample schema, readers and quarantine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One training example; `sample_id` is its content's fingerprint."""

    sample_id: str
    prompt: str
    response: str
