"""The static student: what it is made of, and that it keeps every contract of an encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding

from influcoder_lib import models
from influcoder_lib.errors import SettingsError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.reading import text_of
from influcoder_lib.student.static import static_of
from tests.folders import contents
from tests.tiny import VOCABULARY, tiny_encoder

SAMPLES = [
    Sample(str(i), "the cat " * (i * 5 % 7), "red dog runs . " * (1 + i * 3 % 5)) for i in range(12)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> InfluenceEncoder:
    return InfluenceEncoder.load(tiny_encoder(tmp_path_factory.mktemp("tiny")), 12, "float32")


@pytest.fixture(scope="module")
def static(base: InfluenceEncoder) -> InfluenceEncoder:
    return static_of(base)


def test_it_is_a_table_with_the_base_s_window_and_dimension(
    base: InfluenceEncoder, static: InfluenceEncoder
) -> None:
    assert isinstance(static.model[0], StaticEmbedding)
    assert (static.window, static.dimension) == (12, 32)
    assert static.model[0].embedding.weight.shape == (len(VOCABULARY), 32)
    assert static_of(static).fingerprint == static.fingerprint != base.fingerprint


def test_a_token_s_vector_is_the_base_s_own_centred_and_weighed_down_if_frequent(
    base: InfluenceEncoder, static: InfluenceEncoder
) -> None:
    # Texts of one token: the base reads [CLS] token [SEP] of them, as for the table.
    words = ["a", "cat", "sleeps", "?"]
    rows = [VOCABULARY.index(word) for word in words]
    table = static.model[0].embedding.weight.detach().numpy()
    own = base.encode([Sample(word, "", word) for word in words])
    harmonic = sum(1 / rank for rank in range(1, len(VOCABULARY) + 1))
    weights = np.array([1e-4 / (1e-4 + 1 / (harmonic * (row + 1))) for row in rows])
    differences = table[rows] / weights[:, None] - own
    np.testing.assert_allclose(differences, differences[:1].repeat(4, axis=0), atol=1e-3)


def test_a_vector_is_the_mean_of_the_tokens_that_are_read(static: InfluenceEncoder) -> None:
    ids = [VOCABULARY.index(word) for word in ("red", "cat", "the", "the")]
    mean = static.model[0].embedding.weight.detach().numpy()[ids].mean(axis=0)
    (vector,) = static.encode([Sample("1", "red cat", "the the")])
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_tail_beyond_the_window_is_cut_and_reported(static: InfluenceEncoder) -> None:
    fits, over = Sample("1", "a b c", "a " * 9), Sample("2", "a b c", "a " * 9 + "dog")
    assert static.read([over, fits])[1].tolist() == [True, False]
    np.testing.assert_array_equal(static.encode([over]), static.encode([fits]))
    assert static.read([])[1].shape == (0,)
    assert static.encode([]).shape == (0, 32)


def test_neighbours_and_order_do_not_matter(static: InfluenceEncoder) -> None:
    alone = np.concatenate([static.encode([sample]) for sample in SAMPLES])
    np.testing.assert_array_equal(static.encode(SAMPLES[::-1]), alone[::-1])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_more_texts_than_one_batch_keep_their_places(static: InfluenceEncoder) -> None:
    many = SAMPLES * 200
    np.testing.assert_array_equal(static.encode(many), np.tile(static.encode(SAMPLES), (200, 1)))


def test_a_text_without_a_token_has_a_direction_too(static: InfluenceEncoder) -> None:
    (vector,) = static.encode([Sample("1", "", "\x01")])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_it_is_saved_as_a_plain_sentence_transformer_that_the_models_allow(
    static: InfluenceEncoder, tmp_path: Path
) -> None:
    static.save(tmp_path / "one")
    folder = models.check_encoder(models.locate(str(tmp_path / "one"), tmp_path))
    again = InfluenceEncoder.load(folder, 12, "float32")
    assert again.fingerprint == static.fingerprint == static.copy().fingerprint
    again.encode(SAMPLES)
    again.save(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    plain = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    texts = [text_of(sample) for sample in SAMPLES]
    np.testing.assert_allclose(plain.encode(texts), static.encode(SAMPLES), atol=1e-6)


def test_the_fingerprint_follows_the_table_and_the_window(
    static: InfluenceEncoder, tmp_path: Path
) -> None:
    static.save(tmp_path / "saved")
    other = static.copy()
    with torch.no_grad():
        other.model[0].embedding.weight[0, 0] += 1
    wide = InfluenceEncoder.load(tmp_path / "saved", 13, "float32")
    assert len({static.fingerprint, other.fingerprint, wide.fingerprint}) == 3


def test_an_impossible_window_is_refused(static: InfluenceEncoder, tmp_path: Path) -> None:
    static.save(tmp_path / "saved")
    with pytest.raises(SettingsError, match=r"(?s)cannot read 2 tokens.*3 tokens or more"):
        InfluenceEncoder.load(tmp_path / "saved", 2)
