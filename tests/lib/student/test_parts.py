"""The student that knows prompt from response: what it sees, keeps, saves and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from influcoder_lib.errors import ModelError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.parts import parts_of
from influcoder_lib.student.static import static_of
from tests.tiny import tiny_encoder

SAMPLES = [
    Sample("0", "the cat", "red dog ."),
    Sample("1", "", "dog"),
    Sample("2", "the cat runs the cat runs", "dog . red . dog . red ."),
    Sample("3", "red", "the cat"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> InfluenceEncoder:
    return InfluenceEncoder.load(tiny_encoder(tmp_path_factory.mktemp("tiny")), 24, "float32")


@pytest.fixture(scope="module")
def student(base: InfluenceEncoder) -> InfluenceEncoder:
    return parts_of(base, 8, seed=0)


def test_vectors_are_of_unit_length_and_of_the_wanted_dimension(student: InfluenceEncoder) -> None:
    vectors = student.encode(SAMPLES)
    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_vector_does_not_depend_on_the_neighbours_in_its_batch(student: InfluenceEncoder) -> None:
    together = student.encode(SAMPLES)
    alone = np.concatenate([student.encode([sample]) for sample in SAMPLES])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together, student.encode(SAMPLES, batch_tokens=1), atol=1e-6)


def test_padded_and_unpadded_rows_give_the_same_vectors(student: InfluenceEncoder) -> None:
    padded = student.copy()
    padded.model[0].can_flatten_inputs = False
    np.testing.assert_allclose(padded.encode(SAMPLES), student.encode(SAMPLES), atol=1e-6)


def test_pools_are_the_means_of_the_layers_over_each_part(student: InfluenceEncoder) -> None:
    (batch,) = student._reader.batches(SAMPLES[:1], 1000)
    words, head = student.model[0], student.model[1]
    pools: list[torch.Tensor] = []
    head.drop.register_forward_pre_hook(lambda _, given: pools.append(given[0]))
    with torch.no_grad():
        student.model(dict(batch.inputs))
        states = words(dict(batch.inputs))["all_layer_embeddings"]
    # start, the, cat, end, red, dog, ., end
    expected = [
        torch.nn.functional.layer_norm(torch.cat([s[0, 1:3].mean(0), s[0, 4:7].mean(0)]), (64,))
        for s in (states[0], states[1], states[2])
    ]
    torch.testing.assert_close(pools[0][0, : 3 * 64], torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_prompt_and_response_are_told_apart(student: InfluenceEncoder) -> None:
    one, other = student.encode([Sample("a", "the cat", "dog"), Sample("b", "dog", "the cat")])
    assert one @ other < 0.99


def test_lengths_beyond_the_window_are_still_told_apart(student: InfluenceEncoder) -> None:
    texts = ["dog " * 40, "dog " * 400]
    (one, other), truncated = student.read([Sample(t, "cat", t) for t in texts])
    assert truncated.all()
    assert one @ other < 0.999


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


def test_it_is_saved_and_loaded_with_its_head(student: InfluenceEncoder, tmp_path: Path) -> None:
    student.save(tmp_path / "saved")
    loaded = InfluenceEncoder.load(tmp_path / "saved", 24, "float32")
    assert loaded.fingerprint == student.fingerprint
    np.testing.assert_array_equal(loaded.encode(SAMPLES), student.encode(SAMPLES))
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_a_head_outside_the_folder_is_refused(student: InfluenceEncoder, tmp_path: Path) -> None:
    student.save(tmp_path / "saved")
    listed = tmp_path / "saved" / "modules.json"
    modules = json.loads(listed.read_text())
    modules[1]["path"] = "../elsewhere"
    listed.write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="outside the folder"):
        InfluenceEncoder.load(tmp_path / "saved", 24)


def test_the_head_s_weights_are_part_of_the_fingerprint(
    base: InfluenceEncoder, student: InfluenceEncoder
) -> None:
    assert parts_of(base, 8, seed=0).fingerprint == student.fingerprint
    assert parts_of(base, 8, seed=1).fingerprint != student.fingerprint


def test_gradients_reach_the_transformer_and_the_head(student: InfluenceEncoder) -> None:
    own = student.copy()
    own.forward(SAMPLES)[:, 0].sum().backward()
    missing = {name for name, each in own.model.named_parameters() if each.grad is None}
    assert {name for name in missing if "pooler" not in name} == set()


def test_a_static_encoder_has_no_parts(base: InfluenceEncoder) -> None:
    with pytest.raises(ModelError, match="cannot be told apart"):
        parts_of(static_of(base), 8, seed=0)
