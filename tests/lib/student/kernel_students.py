"""What a kernel student of the tests is trained on, and its head."""

import numpy as np

from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import KernelHead
from influcoder_lib.student.training import TrainingSet
from influcoder_lib.vectors import unit_rows

WORDS = ["red", "cat", "dog", "runs", "the", "."]
SAMPLES = [
    Sample("0", "the cat", "red dog ."),
    Sample("1", "", "dog"),
    Sample("2", "the cat runs the cat runs", "dog . red . dog . red ."),
    Sample("3", "red", "the cat"),
]


def made(seed: int, queries: int, candidates: int) -> TrainingSet:
    """Features that follow the words of the response, and how many of them there are."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(len(WORDS), 12)).astype(np.float32)

    def draw(count: int) -> tuple[list[Sample], np.ndarray]:
        rows = [generator.integers(0, len(WORDS), generator.integers(2, 9)) for _ in range(count)]
        texts = [[WORDS[i] for i in row] for row in rows]
        samples = [Sample(" ".join(t), t[0], " ".join(t[1:])) for t in texts]
        features = np.stack([directions[row[1:]].mean(axis=0) for row in rows])
        return samples, unit_rows(features)

    (q, query_features), (c, candidate_features) = draw(queries), draw(candidates)
    return TrainingSet(q, c, query_features, candidate_features)


TRAIN, VALIDATION = made(0, 20, 60), made(1, 10, 30)


def head_of(student: InfluenceEncoder) -> KernelHead:
    head = student.model[1]
    assert isinstance(head, KernelHead)
    return head
