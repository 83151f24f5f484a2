"""Influence matrices by hand, and splits by prompt that nothing else can move."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influcoder_lib.teacher import rankings

PROMPTS = st.lists(st.text("ab ?É", max_size=12), max_size=12)


def of_split(split: str, number: int = 0) -> str:
    """A prompt that the hash puts into a split at seed 0, shares 0.2 and 0.2."""
    found = (
        text
        for text in (f"please tell me what number {n} stands for" for n in range(10_000))
        if rankings.split_of(text, 0, 0.2, 0.2) == split
    )
    return [next(found) for _ in range(number + 1)][number]


def test_centring_by_hand():
    features = np.array([[1, 0], [0, 1]], dtype=np.float16)
    mean = rankings.centring_mean(features)
    np.testing.assert_array_equal(mean, np.array([0.5, 0.5], dtype=np.float32))
    half = np.float32(0.5**0.5)
    expected = [[half, -half], [-half, half]]
    centred = rankings.centre(features, mean)
    np.testing.assert_allclose(centred, expected, rtol=1e-6)
    assert centred.dtype == np.float32


def test_a_feature_that_is_the_mean_has_no_direction_left():
    centred = rankings.centre(np.array([[0.6, 0.8]]), np.array([0.6, 0.8], dtype=np.float32))
    np.testing.assert_array_equal(centred, [[0.0, 0.0]])


def test_influence_is_a_cosine_of_queries_against_candidates():
    queries = np.array([[1, 0]], dtype=np.float16)
    candidates = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=np.float16)
    found = rankings.influence(queries, candidates)
    np.testing.assert_allclose(found, [[1, 0, 0.6, -1]], atol=1e-3)
    assert found.dtype == np.float32


def test_centring_takes_out_what_all_samples_share():
    shared, own = np.eye(3, dtype=np.float32)[0], np.eye(3, dtype=np.float32)[1:]
    features = np.array([10 * shared + row for row in (*own, *-own)])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    assert rankings.influence(features, features).min() > 0.97
    centred = rankings.centre(features, rankings.centring_mean(features))
    expected = np.array([[1, 0, -1, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, -1, 0, 1]])
    np.testing.assert_allclose(rankings.influence(centred, centred), expected, atol=1e-5)


def test_ranks_begin_with_the_most_influential_and_break_ties_by_position():
    matrix = np.array([[0.1, 0.9, 0.1, 0.5], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    found = rankings.ranks(matrix)
    np.testing.assert_array_equal(found, [[2, 0, 3, 1], [0, 1, 2, 3]])
    assert found.dtype == np.int32


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_a_rank_counts_the_candidates_before_it(row):
    found = rankings.ranks(np.array([row], dtype=np.float32))[0]
    for position, value in enumerate(row):
        above = sum(other > value for other in row)
        assert found[position] == above + row[:position].count(value)


def test_normalising_takes_out_case_punctuation_spacing_and_width():
    assert rankings.normalise_prompt("  Why,\tWHY —  ﬁne ７?\n") == "why why fine 7"
    assert rankings.normalise_prompt("Straße") == rankings.normalise_prompt("STRASSE")
    assert rankings.normalise_prompt("?!") == ""


@given(st.text(max_size=30), st.integers(0, 3))
def test_prompts_that_differ_in_case_and_punctuation_alone_share_a_split(prompt, seed):
    again = f"  {rankings.normalise_prompt(prompt)}!? "
    assert rankings.split_of(prompt, seed, 0.3, 0.3) == rankings.split_of(again, seed, 0.3, 0.3)


def test_splits_have_their_shares():
    prompts = [f"prompt {n}" for n in range(20_000)]
    found = [rankings.split_of(prompt, 0, 0.3, 0.1) for prompt in prompts]
    shares = {name: found.count(name) / len(found) for name in ("train", "validation", "test")}
    assert shares == pytest.approx({"train": 0.6, "validation": 0.3, "test": 0.1}, abs=0.015)
    assert found != [rankings.split_of(prompt, 1, 0.3, 0.1) for prompt in prompts]


@given(PROMPTS, PROMPTS)
def test_other_prompts_never_move_a_prompt_into_another_split(prompts, others):
    alone = [rankings.splits([prompt], 0, 0.3, 0.3)[0] for prompt in prompts]
    together = rankings.splits([*prompts, *others], 0, 0.3, 0.3)[: len(prompts)]
    for prompt, own, found in zip(prompts, alone, together, strict=True):
        assert own == rankings.split_of(prompt, 0, 0.3, 0.3)
        assert found in (own, None)
        if own == "test":
            assert found == "test"


@given(PROMPTS.flatmap(lambda prompts: st.tuples(st.just(prompts), st.permutations(prompts))))
def test_the_order_of_prompts_does_not_matter(pair):
    prompts, shuffled = pair
    expected = dict(zip(prompts, rankings.splits(prompts, 0, 0.3, 0.3), strict=True))
    assert dict(zip(shuffled, rankings.splits(shuffled, 0, 0.3, 0.3), strict=True)) == expected


def jaccard(left: str, right: str) -> float:
    def pieces(text: str) -> set[str]:
        words = rankings.normalise_prompt(text)
        return {words} if len(words) < 5 else {words[i : i + 5] for i in range(len(words) - 4)}

    return len(pieces(left) & pieces(right)) / len(pieces(left) | pieces(right))


@given(st.lists(st.text("ab", min_size=1, max_size=9), max_size=25), st.integers(0, 20))
def test_no_two_near_prompts_are_left_in_different_splits(prompts, seed):
    left = [
        (prompt, split)
        for prompt, split in zip(prompts, rankings.splits(prompts, seed, 0.3, 0.3), strict=True)
        if split is not None
    ]
    for prompt, split in left:
        for other, other_split in left:
            assert split == other_split or jaccard(prompt, other) < 0.8, (prompt, other)


@given(
    st.lists(st.text("ab ", max_size=14), max_size=12),
    st.lists(st.text("ab ", max_size=14), max_size=12),
)
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(prompts, known):
    expected = [any(jaccard(prompt, other) >= 0.8 for other in known) for prompt in prompts]
    assert rankings.near_duplicates(prompts, known).tolist() == expected


@given(st.text("abcdefgh ", min_size=60, max_size=90), st.data())
def test_near_duplicates_of_long_prompts_are_found(prompt, data):
    at = data.draw(st.integers(0, len(prompt)))
    other = prompt[:at] + data.draw(st.text("abz", max_size=4)) + prompt[at:]
    filler = [f"{prompt[i:]}{i}" for i in range(0, len(prompt), 9)]
    expected = any(jaccard(prompt, each) >= 0.8 for each in (other, *filler))
    assert rankings.near_duplicates([prompt], [other, *filler]).tolist() == [expected]


@pytest.mark.parametrize(
    ("split", "held_out"),
    [("train", "test"), ("train", "validation"), ("validation", "test")],
)
def test_a_near_duplicate_of_a_held_out_prompt_leaves(split, held_out):
    kept = of_split(held_out)
    near = next(
        text
        for text in (
            f"{kept}{'!' * 3} {letter}{other}" for letter in "abcdefgh" for other in "abcd"
        )
        if rankings.split_of(text, 0, 0.2, 0.2) == split
    )
    assert jaccard(kept, near) >= 0.8
    assert rankings.splits([near, kept], 0, 0.2, 0.2) == [None, held_out]


def test_prompts_far_apart_stay():
    prompts = ["a recipe with leeks", "how tall is a giraffe", "the capital of Peru", "2 + 2"]
    expected = [rankings.split_of(prompt, 0, 0.3, 0.3) for prompt in prompts]
    assert rankings.splits(prompts, 0, 0.3, 0.3) == expected
