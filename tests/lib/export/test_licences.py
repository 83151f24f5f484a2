"""One licence for the hub, from the licences of the sources."""

import pytest

from influcoder_lib.export.licences import OTHER, hub_licence


@pytest.mark.parametrize(
    ("sources", "licences", "stated"),
    [
        (["a", "b"], {}, {}),
        ([None], {"a": "mit"}, {}),
        (["a"], {"elsewhere": "mit"}, {}),
        (["a", "b"], {"a": "mit", "b": "mit"}, {"license": "mit"}),
        (["a"], {"a": "Apache-2.0"}, {"license": "apache-2.0"}),
        (["a", "b"], {"a": "mit", "b": "apache-2.0"}, OTHER),
        (["a", "b"], {"a": "mit"}, OTHER),
        (["a", None], {"a": "mit"}, OTHER),
        (["a"], {"a": "ask the author: me@example.org"}, OTHER),
    ],
)
def test_it_is_one_identifier_other_or_nothing(sources, licences, stated):
    assert hub_licence(sources, licences) == stated
