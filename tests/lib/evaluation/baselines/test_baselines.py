"""Each baseline against its definition on small cases."""

import math

import numpy as np
import pytest

from influcoder_lib.errors import DataError
from influcoder_lib.evaluation.baselines import bm25, chance, encoder, length, surface
from influcoder_lib.evaluation.baselines.base import Baseline
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.samples import Sample


def make(prompt, response):
    return Sample(sample_id(prompt, response), prompt, response)


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        make("p" * int(a), "r" * int(b) + str(n))
        for n, (a, b) in enumerate(zip(*rng.integers((0, 1), (90, 300), (count, 2)).T, strict=True))
    ]


class Letters:
    """An encoder of two numbers: the lengths of prompt and response."""

    def encode(self, samples):
        return np.array([[len(s.prompt), len(s.response)] for s in samples], dtype=float)

    def encode_queries(self, samples, resemblance=0.0):
        return self.encode(samples)


def every_baseline() -> list[Baseline]:
    train = some(8)
    return [
        chance.Chance(seed=1),
        length.ResponseLength(),
        length.fit(train, train, np.eye(8)),
        surface.fit(train, train, np.eye(8)),
        bm25.Bm25(),
        encoder.EncoderCosine(Letters()),
    ]


@pytest.mark.parametrize("baseline", every_baseline(), ids=lambda one: one.name)
def test_every_baseline_gives_finite_float32_scores_query_by_candidate(baseline):
    scores = baseline.scores(some(3, seed=1), some(5, seed=2))
    assert scores.shape == (3, 5)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert baseline.scores([], some(2)).shape == (0, 2)
    assert baseline.scores(some(2), []).shape == (2, 0)
    assert baseline.name


@pytest.mark.parametrize(
    "baseline", [b for b in every_baseline() if b.name != "BM25"], ids=lambda one: one.name
)
def test_a_pairs_score_does_not_depend_on_the_pairs_beside_it(baseline):
    queries, candidates = some(4, seed=1), some(6, seed=2)
    whole = baseline.scores(queries, candidates)
    part = baseline.scores(queries[::-1][:2], candidates[2:5])
    np.testing.assert_allclose(part, whole[::-1][:2, 2:5], rtol=1e-5)


def test_random_scores_move_with_the_seed_and_spread_evenly():
    queries, candidates = some(40, seed=1), some(50, seed=2)
    one = chance.Chance(seed=1).scores(queries, candidates)
    other = chance.Chance(seed=2).scores(queries, candidates)
    swapped = chance.Chance(seed=1).scores(candidates, queries)
    assert len(np.unique(one)) > 1990
    assert one.min() >= 0
    assert one.max() < 1
    assert np.histogram(one, bins=5, range=(0, 1))[0] == pytest.approx([400] * 5, abs=90)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(one.ravel(), swapped.T.ravel())[0, 1]) < 0.1


def test_response_length_counts_characters_whatever_the_query():
    scores = length.ResponseLength().scores(
        some(2), [make("long prompt", "äöü"), make("", "12345")]
    )
    assert scores.tolist() == [[3, 5], [3, 5]]


def length_features(sample):
    p, r = math.log(1 + len(sample.prompt)), math.log(1 + len(sample.response))
    return np.array([1, p, r, p * p, r * r, p * r])


def test_the_length_map_is_least_squares_over_all_pairs():
    rng = np.random.default_rng(4)
    queries, candidates = some(20, seed=1), some(30, seed=2)
    truth = rng.normal(size=(20, 30))
    pairs = [np.kron(length_features(q), length_features(c)) for q in queries for c in candidates]
    design = np.array(pairs)
    scale = np.abs(design).max(axis=0)
    solution = np.linalg.lstsq(design / scale, truth.ravel(), rcond=1e-15)[0]
    fitted = length.fit(queries, candidates, truth)
    np.testing.assert_allclose(
        fitted.scores(queries, candidates).ravel(), design / scale @ solution, atol=1e-4
    )
    new_query, new_candidate = make("p" * 11, "r" * 50), make("p" * 31, "r" * 90)
    expected = (
        np.kron(length_features(new_query), length_features(new_candidate)) / scale @ solution
    )
    assert fitted.scores([new_query], [new_candidate])[0, 0] == pytest.approx(expected, abs=1e-4)


def test_the_length_map_finds_an_influence_that_length_explains():
    queries, candidates = some(30, seed=1), some(40, seed=2)
    new_queries, new_candidates = some(5, seed=3), some(9, seed=4)

    def influence(rows, columns):
        left = np.log1p([len(s.response) for s in rows])
        right = np.log1p([len(s.response) for s in columns])
        return 0.1 - 0.03 * np.outer(left, right)

    fitted = length.fit(queries, candidates, influence(queries, candidates))
    np.testing.assert_allclose(
        fitted.scores(new_queries, new_candidates),
        influence(new_queries, new_candidates),
        atol=1e-5,
    )


def test_lengths_that_never_varied_in_training_have_no_effect():
    queries = [make("", f"{n:03}") for n in range(4)]
    truth = np.tile([0.1, 0.2, 0.3, 0.4], (4, 1))
    fitted = length.fit(queries, queries, truth)
    scores = fitted.scores([make("a prompt", "new")], some(6))
    np.testing.assert_allclose(scores, 0.25, atol=1e-6)


def test_the_length_map_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="the truth is"):
        length.fit(some(2), some(3), np.zeros((3, 2)))
    with pytest.raises(DataError, match="nothing to be fitted"):
        length.fit([], some(3), np.zeros((0, 3)))
    with pytest.raises(DataError, match="not finite"):
        length.fit(some(1), some(1), [[np.nan]])


def test_bm25_equals_the_formula_worked_out_by_hand():
    candidates = [make("red apple", "red"), make("", "green apple pie crust"), make("blue", "sky")]
    queries = [make("RED", "apple, apple!"), make("", "nothing here"), make("", "?")]
    mean = (3 + 4 + 2) / 3

    def term(times, holding, words):
        idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
        return idf * times / (times + 1.5 * (1 - 0.75 + 0.75 * words / mean))

    expected = [
        [term(2, 1, 3) + 2 * term(1, 2, 3), 2 * term(1, 2, 4), 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(bm25.Bm25().scores(queries, candidates), expected, rtol=1e-5)


def test_bm25_keeps_common_words_and_prints_nothing(capfd):
    scores = bm25.Bm25().scores([make("the", "the")], [make("the", "end"), make("no", "end")])
    assert scores[0, 0] > 0
    assert scores[0, 1] == 0
    assert capfd.readouterr() == ("", "")


def test_bm25_of_candidates_without_a_word_is_zero():
    assert not bm25.Bm25().scores([make("a word", "x")], [make("", "?"), make("", "!")]).any()


def test_an_encoder_is_scored_by_cosine_even_without_unit_vectors():
    queries, candidates = some(3, seed=1), some(4, seed=2)
    scores = encoder.EncoderCosine(Letters(), name="letters").scores(queries, candidates)
    for row, query in enumerate(queries):
        for column, candidate in enumerate(candidates):
            a, b = Letters().encode([query, candidate])
            cosine = a @ b / math.hypot(*a) / math.hypot(*b)
            assert scores[row, column] == pytest.approx(cosine, abs=1e-6)


def test_an_encoder_that_gives_no_direction_is_refused():
    empty = make("", "")
    with pytest.raises(DataError, match=rf"1 vectors(.|\n)*{empty.sample_id}"):
        encoder.EncoderCosine(Letters()).scores(some(2), [*some(2), empty])


def lists_and_prose(count, seed):
    """Samples, and whether each one's response is a list: +1 or -1."""
    rng = np.random.default_rng(seed)
    texts = [["word"] * int(n) for n in rng.integers(3, 40, count)]
    kinds = rng.integers(0, 2, count)
    responses = [
        ("\n" if kind else " ").join(text) for kind, text in zip(kinds, texts, strict=True)
    ]
    return [make(f"p{i}", each) for i, each in enumerate(responses)], 2.0 * kinds - 1


def test_the_surface_map_finds_what_length_cannot_and_never_saw_the_samples():
    (queries, own), (candidates, other) = lists_and_prose(40, 0), lists_and_prose(60, 1)
    (asked, left), (offered, right) = lists_and_prose(8, 2), lists_and_prose(20, 3)
    truth = np.outer(own, other)
    found = surface.fit(queries, candidates, truth).scores(asked, offered)
    assert (np.sign(found) == np.outer(left, right)).mean() > 0.97
    by_length = length.fit(queries, candidates, truth).scores(asked, offered)
    assert (np.sign(by_length) == np.outer(left, right)).mean() < 0.75


def test_the_surface_map_says_what_it_needs():
    with pytest.raises(DataError, match="at least two queries"):
        surface.fit(some(1), some(4), np.ones((1, 4)))
    with pytest.raises(DataError, match="finite"):
        surface.fit(some(2), some(2), np.full((2, 2), np.nan))
