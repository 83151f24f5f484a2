"""The head of a student: what it is told of a sample, its vectors, and its folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from influcoder_lib.errors import ModelError
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.head import Regression
from influcoder_lib.student.kernel import featurize
from tests.lib.student.kernel_students import SAMPLES, TRAIN, VALIDATION, head_of
from tests.tiny import VOCABULARY


def test_pools_are_the_means_of_the_layers_over_each_part(
    kernel_student: InfluenceEncoder,
) -> None:
    def layers(batch):
        return kernel_student.model[0](dict(batch.inputs))["all_layer_embeddings"]

    ((_, states),) = kernel_student.compute(SAMPLES[:1], "candidate", layers)
    # start, the, cat, end, red, dog, ., end
    expected = torch.cat(
        [
            torch.nn.functional.layer_norm(states[layer][0, part].mean(0), (32,))
            for layer in (0, 1, 2)
            for part in (slice(1, 3), slice(4, 7))
        ]
    )
    found = featurize(kernel_student, SAMPLES[:1], "candidate")[0, : len(expected)]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_of_a_static_encoder_they_are_the_means_of_the_table_s_rows(
    static_student: InfluenceEncoder,
) -> None:
    table = static_student.model[0].embedding.weight
    words = [["the", "cat"], ["red", "dog", "."]]
    means = [table[[VOCABULARY.index(each) for each in part]].mean(0) for part in words]
    expected = torch.cat([torch.nn.functional.layer_norm(mean, (32,)) for mean in means])
    found = featurize(static_student, SAMPLES, "candidate")
    torch.testing.assert_close(found[0, :64], expected, atol=1e-5, rtol=1e-5)
    assert not found[1, :32].any(), "an empty prompt"


def test_prompt_and_response_are_told_apart(student: InfluenceEncoder) -> None:
    one, other = student.encode([Sample("a", "the cat", "dog"), Sample("b", "dog", "the cat")])
    assert one @ other < 0.9999


def test_the_kernel_is_a_mean_over_the_pools_and_one_of_what_is_told() -> None:
    regression = Regression([2, 1, 1, 1], supports=2, numbers=1, told=3.0)
    regression.support.copy_(torch.tensor([[0.0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]))
    found = regression.kernel(torch.tensor([[0.0, 1, 2, 0, 0.5]]))
    pools = np.array([np.exp(-1) + np.exp(-4), np.exp(-2) + np.exp(-4)]) / 2
    told = (1 + np.exp(-0.25)) / 2
    np.testing.assert_allclose(found[0], (pools + 3 * told) / 4, rtol=1e-6)


def test_scores_are_in_proportion_to_the_predicted_influences(
    kernel_student: InfluenceEncoder,
) -> None:
    expected, lengths = predicted_scores(kernel_student)
    assert (lengths < 1).all()
    found = kernel_student.encode_queries(SAMPLES) @ kernel_student.encode(SAMPLES).T
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_but_a_prediction_longer_than_1_counts_as_one_of_1(
    static_student: InfluenceEncoder,
) -> None:
    expected, lengths = predicted_scores(static_student)
    assert (lengths < 1).any()
    assert (lengths > 1).any()
    found = static_student.encode_queries(SAMPLES) @ static_student.encode(SAMPLES).T
    np.testing.assert_allclose(found, expected / np.maximum(lengths, 1), atol=1e-6)


def predicted_scores(student: InfluenceEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Scores (4, 4) of SAMPLES by the regressions, and the lengths (4,) of their predictions."""
    head = head_of(student)
    raw = head.query(featurize(student, SAMPLES, "query"))
    predicted = head.candidate(featurize(student, SAMPLES, "candidate"))
    scores = torch.nn.functional.normalize(raw, dim=1) @ predicted.T / 2**0.5
    return scores.numpy(), predicted.norm(dim=1).numpy()


def test_resemblance_is_the_cosine_of_last_layers_in_few_numbers(student: InfluenceEncoder) -> None:
    head = head_of(student)
    both = [head.embedding(featurize(student, each, "query")) for each in (TRAIN.queries, SAMPLES)]
    assert float((both[0] - both[0] @ head.basis @ head.basis.T).norm()) < 0.2 * len(both[0]) ** 0.5
    candidates = student.encode(SAMPLES)
    alike = candidates[:, head.influencing : -1] * 2**0.5
    np.testing.assert_allclose(alike, (both[1] @ head.basis).numpy(), atol=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_blend_ranks_by_both_in_units_of_their_spreads(
    student: InfluenceEncoder, share: float
) -> None:
    head = head_of(student)
    candidates = student.encode(VALIDATION.candidates)
    influence = student.encode_queries(SAMPLES) @ candidates.T
    alike = head.embedding(featurize(student, SAMPLES, "query")) @ head.basis
    resemblance = alike.numpy() @ candidates[:, head.influencing : -1].T
    spreads = head.spreads.numpy()
    expected = (1 - share) * influence / spreads[0] + share * resemblance / spreads[1]
    blended = student.encode_queries(SAMPLES, share)
    np.testing.assert_allclose(np.linalg.norm(blended, axis=1), 1, atol=1e-6)
    found = blended @ candidates.T
    scale = (found * expected).sum(axis=1) / np.square(expected).sum(axis=1)
    np.testing.assert_allclose(found, scale[:, None] * expected, atol=1e-5)


def test_vectors_are_of_unit_length_and_of_the_wanted_dimension(student: InfluenceEncoder) -> None:
    for vectors in (student.encode(SAMPLES), student.encode_queries(SAMPLES)):
        assert vectors.shape == (4, 24)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_it_is_saved_and_loaded_with_its_head(student: InfluenceEncoder, tmp_path: Path) -> None:
    student.save(tmp_path / "saved")
    loaded = InfluenceEncoder.load(tmp_path / "saved", 24, "float32")
    assert loaded.fingerprint == student.fingerprint
    np.testing.assert_array_equal(loaded.encode(SAMPLES), student.encode(SAMPLES))
    np.testing.assert_array_equal(loaded.encode_queries(SAMPLES), student.encode_queries(SAMPLES))
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_a_head_that_names_no_weight_has_one_of_1(
    student: InfluenceEncoder, tmp_path: Path
) -> None:
    student.save(tmp_path / "saved")
    config = tmp_path / "saved" / "1_KernelHead" / "config.json"
    facts = json.loads(config.read_text())
    assert facts.pop("told") == head_of(student).told
    config.write_text(json.dumps(facts))
    assert head_of(InfluenceEncoder.load(tmp_path / "saved", 24)).told == [1, 1]


@pytest.mark.parametrize("module", [0, 1])
def test_a_module_outside_the_folder_is_refused(
    student: InfluenceEncoder, module: int, tmp_path: Path
) -> None:
    student.save(tmp_path / "saved")
    listed = tmp_path / "saved" / "modules.json"
    modules = json.loads(listed.read_text())
    modules[module]["path"] = "../elsewhere"
    listed.write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="outside the folder"):
        InfluenceEncoder.load(tmp_path / "saved", 24)
