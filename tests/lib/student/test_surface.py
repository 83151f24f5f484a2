"""Surface features: counted by hand, and finite for any text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.student.surface import NUMBERS, surface_features


def test_counts_shares_and_edges_of_a_text_counted_by_hand() -> None:
    found, second, third = surface_features(['A cat, 2 cats.\n\nThe "cat"', "3 men.", "no"])
    # characters, words, different, capitals, digits, newlines, blank lines, . , - "
    counts = np.array([25, 6, 6, 2, 1, 2, 1, 1, 1, 0, 2])
    np.testing.assert_allclose(found[:11], np.log1p(counts), rtol=1e-6)
    np.testing.assert_allclose(found[11:22], 2 * np.sqrt(counts / 25), rtol=1e-6)
    assert found[22:].tolist() == [1, 0, 0, 0]
    assert second[22:].tolist() == [0, 1, 1, 0]
    assert third[22:].tolist() == [0, 0, 0, 1]


@given(st.text())
def test_capitals_and_digits_are_those_of_all_scripts(text: str) -> None:
    (found,) = np.expm1(surface_features([text]))
    counts = [sum(map(str.isupper, text)), sum(map(str.isdigit, text))]
    np.testing.assert_allclose(found[3:5], counts, rtol=1e-4, atol=1e-4)


@given(st.lists(st.text(), max_size=3))
def test_any_texts_have_finite_features(texts: list[str]) -> None:
    found = surface_features(texts)
    assert found.shape == (len(texts), NUMBERS)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
