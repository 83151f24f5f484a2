"""What the pages for users say of the settings is what the settings are."""

import re
from pathlib import Path

import yaml

from influcoder_assets.config import Settings
from influcoder_assets.settings_errors import allowed_text, settings_keys

PROJECT = Path(__file__).parents[2]


def rows(text: str) -> list[tuple[str, str, str]]:
    """Key, default and meaning of every row of a table of settings."""
    return re.findall(r"(?m)^\| `(.+?)` \| (.+?) \| (.+) \|$", text)


def page() -> list[tuple[str, str, str]]:
    return rows((PROJECT / "docs" / "settings.md").read_text())


def test_the_page_of_settings_lists_each_with_its_default_and_meaning():
    fields = dict(settings_keys(Settings))
    listed = {key: (default.strip("`"), meaning) for key, default, meaning in page()}
    leaves = {key for key in fields if not any(other.startswith(f"{key}.") for other in fields)}
    assert set(listed) == leaves
    for key in leaves:
        default, meaning = listed[key]
        assert meaning == f"{fields[key].description} Allowed: {allowed_text(fields[key])}.", key
        if fields[key].is_required():
            assert default == "required", key
        else:
            expected = fields[key].get_default(call_default_factory=True)
            assert yaml.safe_load(default) == (
                list(expected) if expected == (0, 1, 2) else expected
            )


def test_the_readme_lists_the_first_of_them_with_the_same_defaults():
    readme = (PROJECT / "README.md").read_text()
    section = readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
    first = {(key, default) for key, default, _ in rows(section)}
    assert first
    assert first <= {(key, default) for key, default, _ in page()}
