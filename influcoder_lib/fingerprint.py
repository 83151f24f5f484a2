"""Content hashes of samples, files, arrays and settings: equal content, equal fingerprint.

A fingerprint is the first 128 bits of a SHA-256, written as 32 hexadecimal characters. Nothing
that changes from run to run (a time, a path, a machine) ever enters one.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def of_bytes(data: bytes) -> str:
    """Fingerprint of raw bytes."""
    return hashlib.sha256(data).hexdigest()[:32]


def of_text(*parts: str) -> str:
    """Fingerprint of several texts; each is length-prefixed, so boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()[:32]


def of_json(value: Any) -> str:
    """Fingerprint of a JSON value, whatever the order of its keys.

    Raises:
        TypeError: the value holds something that JSON cannot.
        ValueError: the value holds a NaN or an infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return of_bytes(text.encode())


def of_file(path: Path) -> str:
    """Fingerprint of a file's bytes, read in blocks."""
    return sha256_of_file(path)[:32]


def sha256_of_file(path: Path) -> str:
    """The whole SHA-256 of a file's bytes, 64 hexadecimal characters, as other programs give it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Fingerprint of named fingerprints, whatever their order."""
    return of_text(*(text for pair in sorted(pairs) for text in pair))


def of_array(array: np.ndarray) -> str:
    """Fingerprint of an array's dtype, shape and values."""
    contiguous = np.ascontiguousarray(array)
    head = of_text(contiguous.dtype.str, repr(contiguous.shape))
    return of_bytes(head.encode() + contiguous.tobytes())


def sample_id(prompt: str, response: str) -> str:
    """Identity of a sample: the fingerprint of its prompt and response."""
    return of_text("sample", prompt, response)


def draw_key(seed: int, identity: str) -> int:
    """Pseudo-random 64-bit rank of a sample (or prompt) under a seed; the lowest are drawn."""
    return int(of_text("draw", str(seed), identity)[:16], 16)
