"""BM25: words in common, weighed by how rare they are among the candidates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

# Where JAX is installed bm25s starts it, and it would take three quarters of a GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import bm25s
import numpy as np
from numpy.typing import NDArray

from influcoder_lib.samples import Sample
from influcoder_lib.student.reading import text_of

_K1 = 1.5
_B = 0.75


@dataclass(frozen=True)
class Bm25:
    """Okapi BM25 in Lucene's form, k1 = 1.5 and b = 0.75, of prompt + newline + response.

    score(q, c) = Σ over the words w of q, repetitions included, of
    ln(1 + (N - n_w + ½) / (n_w + ½)) · t / (t + k1 · (1 - b + b · |c| / mean |c|)),
    with n_w of the N candidates holding w, t times in c (Kamphuis et al. 2020, "Lucene
    accurate"). A word is two or more word characters, in lower case; none is stemmed and none is
    a stop word: no language is preferred among those that put spaces between words. Without a word
    in common the score is 0.
    """

    name: str = "BM25"

    def scores(
        self, queries: Sequence[Sample], candidates: Sequence[Sample]
    ) -> NDArray[np.float32]:
        """Scores (Q, N) float32, 0 or more."""
        scores = np.zeros((len(queries), len(candidates)), dtype=np.float32)
        documents = _words(candidates)
        if not any(documents.ids):
            return scores
        index = bm25s.BM25(method="lucene", k1=_K1, b=_B, dtype="float32", backend="numpy")
        index.index(documents, create_empty_token=False, show_progress=False)
        words = _words(queries)
        by_number = {number: word for word, number in words.vocab.items()}
        for row, numbers in enumerate(words.ids):
            known = index.get_tokens_ids([by_number[number] for number in numbers])
            if known:
                scores[row] = index.get_scores_from_ids(known)
        return scores


def _words(samples: Sequence[Sample]) -> bm25s.tokenization.Tokenized:
    return bm25s.tokenize(
        [text_of(sample) for sample in samples], stopwords=[], show_progress=False
    )
