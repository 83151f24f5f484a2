"""Which samples of the corpus push the model most towards an output, as the champion sees it."""

import time
from dataclasses import dataclass

from influcoder_lib.audit.catalog import Catalog
from influcoder_lib.audit.neighbours import LiveIndex, Neighbour
from influcoder_lib.errors import DataError
from influcoder_lib.fingerprint import sample_id
from influcoder_lib.samples import Sample
from influcoder_lib.store import Store
from influcoder_lib.student.encoder import InfluenceEncoder


@dataclass(frozen=True)
class Answer:
    """What a search found, nearest first, and how long encoding and looking up took.

    `truncated`: the text is longer than the encoder's window, and part of it was not read.
    """

    sample: Sample
    found: list[Neighbour]
    milliseconds: float
    truncated: bool


class Searcher:
    """The champion and the embeddings of all live shards, loaded once and searched many times.

    `missing` names live shards that the champion has not embedded yet.

    Raises:
        StoreError: there is no champion yet, or a stored file is missing or damaged.
        ModelError: the encoder cannot be loaded.
        DataError: nothing is embedded by the champion yet.
    """

    def __init__(self, store: Store) -> None:
        champion = store.require("champion_encoder")
        self._index = LiveIndex(store, Catalog(store), champion.summary["encoder"])
        if not len(self._index):
            raise DataError(
                "The encoder in use has embedded no sample of the corpus yet.",
                fix="type `influcoder run`",
            )
        self.missing = self._index.missing
        folder = store.folder(champion, "encoder")
        self._encoder = InfluenceEncoder.load(folder, champion.summary["window"])
        # The first search of a process pays for threads and caches: it is not the user's.
        self.search(output("", "warm up"), top=1)

    def search(self, sample: Sample, top: int) -> Answer:
        """The `top` samples with the highest cosine with this one."""
        began = time.perf_counter()
        (vector,), (truncated,) = self._encoder.read([sample], "query")
        found = self._index.nearest(vector, top)
        milliseconds = 1000 * (time.perf_counter() - began)
        return Answer(sample, found, milliseconds, bool(truncated))


def output(prompt: str, response: str) -> Sample:
    """The model's output `response` to `prompt`, which may be empty, as a sample.

    Raises:
        DataError: the response is blank.
    """
    if not response.strip():
        raise DataError("The output to search for is blank.", fix="give some text")
    try:
        f"{prompt}{response}".encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "The output to search for is not valid UTF-8.",
            fix="type it in a UTF-8 terminal, or put it into a file and name that with --file",
        ) from error
    return Sample(sample_id(prompt, response), prompt, response)
