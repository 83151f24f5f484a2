"""Prompt and response read apart: what a window keeps of each, padded or end to end."""

import numpy as np
import pytest

from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from tests.lib.student.kernel_students import SAMPLES


def test_a_vector_does_not_depend_on_the_neighbours_in_its_batch(student: InfluenceEncoder) -> None:
    together = student.encode(SAMPLES)
    alone = np.concatenate([student.encode([sample]) for sample in SAMPLES])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    one_by_one = student.copy()
    one_by_one.budget.tokens = 1
    np.testing.assert_allclose(together, one_by_one.encode(SAMPLES), atol=1e-5)


def test_padded_and_unpadded_rows_give_the_same_vectors(student: InfluenceEncoder) -> None:
    padded = student.copy()
    padded.model[0].can_flatten_inputs = False
    np.testing.assert_allclose(padded.encode(SAMPLES), student.encode(SAMPLES), atol=1e-5)


def test_lengths_beyond_the_window_are_still_told_apart(student: InfluenceEncoder) -> None:
    texts = ["dog " * 40, "dog " * 400]
    (one, other), truncated = student.read([Sample(t, "cat", t) for t in texts], "candidate")
    assert truncated.all()
    assert one @ other < 0.99999


@pytest.mark.parametrize(
    ("prompt", "response", "kept"),
    [(3, 4, (3, 4)), (30, 30, (11, 10)), (30, 2, (19, 2)), (2, 30, (2, 19)), (0, 30, (0, 21))],
)
def test_the_response_keeps_at_least_half_and_the_prompt_loses_its_head(
    student: InfluenceEncoder, prompt: int, response: int, kept: tuple[int, int]
) -> None:
    cut = student._reader._fit(list(range(prompt)), list(range(response)))
    assert (len(cut[0]), len(cut[1])) == kept
    assert cut[0] == list(range(prompt))[prompt - kept[0] :]
    assert cut[1] == list(range(response))[: kept[1]]


def test_the_least_window_has_room_for_a_token_of_each_part(student: InfluenceEncoder) -> None:
    model = student.copy().model
    with pytest.raises(SettingsError, match=r"(?s)cannot read 4 tokens.*5 to 64 tokens"):
        InfluenceEncoder(model, 4)
    cut = InfluenceEncoder(model, 5)._reader._fit([1, 2, 3], [4, 5, 6])
    assert cut == ([3], [4])
