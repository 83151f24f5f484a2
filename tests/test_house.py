"""Rules of the house that tools and a look at the files can hold us to."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
LONGEST_MODULE = 400
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|--(extra-)?index-url[ =]|/simple/")
POLARS_READING = re.compile(r"\bpl\.(read|scan)_parquet\b")
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|home|Users)/")


def kept_files() -> list[Path]:
    """Every file that git tracks, or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = (PROJECT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def modules() -> list[Path]:
    return [path for path in kept_files() if path.suffix == ".py"]


def places(pattern: re.Pattern[str]) -> list[str]:
    """file:line of every match in a text file."""
    found = []
    for path in kept_files():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:80]}")
    return found


@pytest.mark.parametrize(
    "command",
    [
        [str(BIN / "ruff"), "check"],
        [str(BIN / "ruff"), "format", "--check"],
        [str(BIN / "mypy")],
        [str(BIN / "lint-imports")],
    ],
    ids=["ruff", "format", "types", "imports"],
)
def test_make_lint_has_nothing_to_say(command):
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_names_a_package_registry():
    assert places(REGISTRY) == []


def test_no_file_names_a_path_of_one_machine():
    assert places(MACHINE_PATH) == []


def test_polars_is_told_everywhere_that_a_path_is_no_pattern():
    found = [place for place in places(POLARS_READING) if place.startswith("influcoder_")]
    assert {place.split(":")[0] for place in found} == {"influcoder_lib/tables.py"}, found


def test_every_pin_in_the_lock_has_hashes():
    pins = re.split(r"(?m)^(?=[a-z0-9])", (PROJECT / "requirements.lock").read_text())[1:]
    assert len(pins) > 100
    assert [pin.split("\n")[0] for pin in pins if "--hash=sha256:" not in pin] == []


def test_every_dependency_has_a_licence_that_is_allowed():
    done = subprocess.run(
        [str(BIN / "pip-licenses")], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout


def test_every_module_says_what_belongs_in_it():
    silent = [path for path in modules() if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert [str(path.relative_to(PROJECT)) for path in silent] == []


def test_no_module_is_longer_than_it_may_be():
    lengths = {
        str(path.relative_to(PROJECT)): len(path.read_bytes().splitlines()) for path in modules()
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}
