"""Prompt and response read apart: what a window keeps of each, padded or end to end."""

import numpy as np
import pytest
import torch

from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import featurize
from influcoder_lib.student.reading import fitted
from tests.lib.student.kernel_students import SAMPLES


def test_a_vector_does_not_depend_on_the_neighbours_in_its_batch(
    kernel_student: InfluenceEncoder,
) -> None:
    together = kernel_student.encode(SAMPLES)
    alone = np.concatenate([kernel_student.encode([sample]) for sample in SAMPLES])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    one_by_one = kernel_student.copy()
    one_by_one.budget.tokens = 1
    np.testing.assert_allclose(together, one_by_one.encode(SAMPLES), atol=1e-5)


def test_nor_does_that_of_a_static_encoder(static_student: InfluenceEncoder) -> None:
    # Some of these are predicted longer than 1, so that the last number is the root of 0, in which
    # noise of 1e-7 is one of 3e-4.
    together = static_student.encode(SAMPLES)
    alone = np.concatenate([static_student.encode([sample]) for sample in SAMPLES])
    np.testing.assert_allclose(together[:, :-1], alone[:, :-1], atol=1e-5)
    np.testing.assert_allclose(together[:, -1], alone[:, -1], atol=1e-3)
    one_by_one = static_student.copy()
    one_by_one.budget.tokens = 1
    np.testing.assert_array_equal(alone, one_by_one.encode(SAMPLES))


def test_padded_and_unpadded_rows_give_the_same_vectors(kernel_student: InfluenceEncoder) -> None:
    padded = kernel_student.copy()
    padded.model[0].can_flatten_inputs = False
    np.testing.assert_allclose(padded.encode(SAMPLES), kernel_student.encode(SAMPLES), atol=1e-5)


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
    prompt: int, response: int, kept: tuple[int, int]
) -> None:
    cut = fitted(list(range(prompt)), list(range(response)), 21)
    assert (len(cut[0]), len(cut[1])) == kept
    assert cut[0] == list(range(prompt))[prompt - kept[0] :]
    assert cut[1] == list(range(response))[: kept[1]]


def test_the_least_window_has_room_for_a_token_of_each_part(
    kernel_student: InfluenceEncoder,
) -> None:
    model = kernel_student.copy().model
    with pytest.raises(SettingsError, match=r"(?s)cannot read 4 tokens.*5 to 64 tokens"):
        InfluenceEncoder(model, 4)
    least, cut = InfluenceEncoder(model, 5), Sample("", "red the cat", "dog runs .")
    same = least.encode([cut, Sample("", "the cat", "dog runs .")])
    assert same[0] @ same[1] < 1 - 1e-6, "the counts differ"
    pools = featurize(least, [cut, Sample("", "cat", "dog")], "candidate")[:, : 32 * 6]
    torch.testing.assert_close(pools[0], pools[1], atol=1e-5, rtol=1e-5)


def test_a_static_encoder_keeps_the_same_of_each_part(static_student: InfluenceEncoder) -> None:
    # A window of 24 without special tokens.
    long = Sample("", "cat " * 20 + "the " * 12, "red " * 12 + "dog " * 20)
    assert static_student.read([long])[1].tolist() == [True]
    kept = Sample("", "the " * 12, "red " * 12)
    assert static_student.read([kept])[1].tolist() == [False]
    pools = featurize(static_student, [long, kept], "candidate")[:, :64]
    torch.testing.assert_close(pools[0], pools[1])


def test_a_prefix_stands_before_the_prompt_alone(static_student: InfluenceEncoder) -> None:
    model = static_student.copy().model
    model.prompts, model.default_prompt_name = {"passage": "red "}, "passage"
    prefixed = InfluenceEncoder(model, 24)
    np.testing.assert_array_equal(
        featurize(prefixed, [Sample("", "cat", "dog")], "candidate")[:, :64],
        featurize(static_student, [Sample("", "red cat", "dog")], "candidate")[:, :64],
    )
