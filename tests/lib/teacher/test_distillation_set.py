"""The frozen distillation set: who is in it, how it is split and centred, and that it keeps."""

import numpy as np
import polars as pl
import pytest

from influcoder_lib import fingerprint
from influcoder_lib.errors import DataError
from influcoder_lib.teacher import rankings
from influcoder_lib.teacher.distillation_set import DistillationSet
from influcoder_lib.vectors import unit_rows

WORDS = ["leek", "giraffe", "Peru", "violin", "comet", "otter", "harbor", "cement", "poem", "salt"]


def frame(prompts: list[str], response: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sample_id": [fingerprint.sample_id(prompt, response) for prompt in prompts],
            "prompt": prompts,
            "response": response,
        },
        schema=dict.fromkeys(("sample_id", "prompt", "response"), pl.String),
    )


def unit(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 6)) + 2 * np.eye(6)[0]
    return unit_rows(rows).astype(np.float16)


QUERIES = frame([f"{a} or {b}?" for a in WORDS[:6] for b in WORDS[:6]], "a query")
CANDIDATES = frame([f"how {a} met {b}" for a in WORDS for b in WORDS], "a candidate")
QUERY_FEATURES, CANDIDATE_FEATURES = unit(len(QUERIES), 0), unit(len(CANDIDATES), 1)


def freeze(
    queries: pl.DataFrame = QUERIES,
    query_features: np.ndarray = QUERY_FEATURES,
    candidates: pl.DataFrame = CANDIDATES,
    candidate_features: np.ndarray = CANDIDATE_FEATURES,
) -> DistillationSet:
    return DistillationSet.freeze(
        queries, query_features, candidates, candidate_features, 0, 0.2, 0.2
    )


def features_of(frozen: DistillationSet) -> dict[str, bytes]:
    rows = zip(frozen.candidates["sample_id"], frozen.candidate_features, strict=True)
    return {sample_id: row.tobytes() for sample_id, row in rows}


def test_every_row_has_the_split_of_its_prompt_and_its_own_features():
    frozen = freeze()
    given = dict(zip(CANDIDATES["sample_id"], CANDIDATE_FEATURES, strict=True))
    assert len(frozen.candidates) == len(frozen.candidate_features) > 60
    for row, feature in zip(
        frozen.candidates.iter_rows(named=True), frozen.candidate_features, strict=True
    ):
        assert row["split"] == rankings.split_of(row["prompt"], 0, 0.2, 0.2)
        np.testing.assert_array_equal(feature, given[row["sample_id"]])
    assert frozen.candidates["sample_id"].is_sorted()
    assert frozen.queries["sample_id"].is_sorted()
    assert set(frozen.queries["sample_id"]) <= set(QUERIES["sample_id"])


def test_the_order_of_rows_does_not_matter():
    order = np.random.default_rng(5).permutation(len(CANDIDATES))
    shuffled = freeze(
        candidates=CANDIDATES[order.tolist()], candidate_features=CANDIDATE_FEATURES[order]
    )
    assert shuffled.candidates.equals(freeze().candidates)
    assert features_of(shuffled) == features_of(freeze())
    np.testing.assert_allclose(shuffled.mean, freeze().mean, rtol=1e-6)


def test_a_candidate_that_is_a_query_leaves():
    query = QUERIES.head(1)
    more = pl.concat([CANDIDATES, query])
    frozen = freeze(
        candidates=more, candidate_features=np.vstack([CANDIDATE_FEATURES, QUERY_FEATURES[:1]])
    )
    assert query["sample_id"][0] not in set(frozen.candidates["sample_id"])
    assert frozen.candidates.equals(freeze().candidates)


def test_a_candidate_that_is_there_twice_stays_once():
    more = pl.concat([CANDIDATES, CANDIDATES.head(5)])
    twice = np.vstack([CANDIDATE_FEATURES, CANDIDATE_FEATURES[:5]])
    assert freeze(candidates=more, candidate_features=twice).candidates.equals(freeze().candidates)


def test_a_train_candidate_near_a_held_out_query_leaves():
    test_query = next(
        p for p in QUERIES["prompt"] if rankings.split_of(p, 0, 0.2, 0.2) == "test" and len(p) > 15
    )
    near = next(
        text
        for text in (f"{test_query} {letter}" for letter in "abcdefghijkl")
        if rankings.split_of(text, 0, 0.2, 0.2) == "train"
    )
    more = pl.concat([CANDIDATES, frame([near], "a candidate")])
    frozen = freeze(candidates=more, candidate_features=unit(len(more), 1))
    assert near not in set(frozen.candidates["prompt"])


def test_the_mean_is_that_of_the_train_candidates():
    frozen = freeze()
    train = (frozen.candidates["split"] == "train").to_numpy()
    assert 0 < train.sum() < len(train)
    expected = frozen.candidate_features[train].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(frozen.mean, expected, rtol=1e-5)


def test_raw_influence_is_the_plain_cosine_and_centred_has_the_mean_taken_out():
    frozen = freeze()
    queries, candidates, mean = (
        each.astype(np.float64)
        for each in (frozen.query_features, frozen.candidate_features, frozen.mean)
    )
    np.testing.assert_allclose(frozen.influence("raw"), queries @ candidates.T, atol=1e-5)

    def centred(rows: np.ndarray) -> np.ndarray:
        return (rows - mean) / np.linalg.norm(rows - mean, axis=1, keepdims=True)

    expected = centred(queries) @ centred(candidates).T
    np.testing.assert_allclose(frozen.influence("centred"), expected, atol=1e-5)
    assert frozen.influence("raw").mean() > 0.3 > abs(frozen.influence("centred").mean())


def test_samples_are_those_of_their_split_alone_and_counts_count_them():
    frozen = freeze()
    counts = frozen.counts()
    for split in ("train", "validation", "test"):
        queries, candidates = frozen.samples(split)
        assert len(queries) == counts[f"{split}_queries"]
        assert len(candidates) == counts[f"{split}_candidates"]
        assert {rankings.split_of(s.prompt, 0, 0.2, 0.2) for s in candidates} == {split}
        sides = (queries, frozen.queries), (candidates, frozen.candidates)
        for rows, (samples, frame) in zip(frozen.rows(split), sides, strict=True):
            assert frame["sample_id"][rows].to_list() == [each.sample_id for each in samples]
    assert sum(counts.values()) == len(frozen.queries) + len(frozen.candidates)


def test_it_is_read_back_as_it_was_written(tmp_path):
    frozen = freeze()
    frozen.save(tmp_path)
    again = DistillationSet.load(tmp_path)
    assert again.queries.equals(frozen.queries)
    assert again.candidates.equals(frozen.candidates)
    for name in ("query_features", "candidate_features", "mean"):
        left, right = getattr(again, name), getattr(frozen, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_without_prompts_the_responses_are_what_is_split():
    given = CANDIDATES.with_columns(pl.lit("").alias("prompt"), pl.col("prompt").alias("response"))
    frozen = freeze(candidates=given)
    by_prompt = freeze()
    assert frozen.counts() == by_prompt.counts()
    for row in frozen.candidates.iter_rows(named=True):
        assert row["split"] == rankings.split_of(row["response"], 0, 0.2, 0.2)


def test_too_few_queries_are_an_error_that_counts_them():
    few = [p for p in QUERIES["prompt"] if rankings.split_of(p, 0, 0.2, 0.2) == "train"]
    queries = frame(few, "a query")
    with pytest.raises(DataError) as caught:
        freeze(queries, unit(len(few), 0))
    text = str(caught.value)
    assert f'Too few queries to distil from: {{"train": {len(few)}, "validation": 0' in text
    assert 'at least {"train": 4, "validation": 2, "test": 2}' in text
    assert "give 30 query samples or more, of all behaviors together" in text


@pytest.mark.parametrize(("count", "advice"), [(0, "FROM quarantine"), (3, "candidates_per_shard")])
def test_too_few_candidates_are_an_error_that_says_what_to_do(count, advice):
    with pytest.raises(DataError, match=rf"Too few candidates(.|\n)*{advice}"):
        freeze(candidates=CANDIDATES.head(count), candidate_features=unit(count, 1))
