"""CountSketch against the dense matrix it stands for: linear, unbiased, fixed by seed and name."""

import numpy as np
import pytest
import torch
from torch import Tensor

from influcoder_lib.teacher.sketch import CountSketch

SHAPES = {"first.B": (3, 4), "first.A": (4, 2), "second.B": (5, 3)}


def gradients(samples: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(samples, *shape, generator=generator) for name, shape in SHAPES.items()
    }


def sketched(sketch: CountSketch, layers: dict[str, Tensor]) -> Tensor:
    samples = len(next(iter(layers.values())))
    accumulator = sketch.empty(samples, torch.device("cpu"))
    for name, layer in layers.items():
        sketch.add(accumulator, name, layer)
    return accumulator.T


def dense(sketch: CountSketch, name: str, coordinates: int) -> Tensor:
    """The (D, P) matrix of one layer: a single ±1 in every column."""
    buckets, signs = sketch.hashes(name, coordinates)
    matrix = torch.zeros(sketch.dimensions, coordinates)
    for column in range(coordinates):
        matrix[buckets[column], column] = signs[column]
    return matrix


@pytest.mark.parametrize("dimensions", [1, 7, 64])
def test_it_equals_a_product_with_the_dense_matrix(dimensions):
    sketch, layers = CountSketch(dimensions, 3), gradients(6)
    flat = {name: layer.reshape(6, -1) for name, layer in layers.items()}
    expected = sum(layer @ dense(sketch, name, layer.shape[1]).T for name, layer in flat.items())
    torch.testing.assert_close(sketched(sketch, layers), torch.as_tensor(expected))


@pytest.mark.parametrize("dimensions", [1, 7, 64])
def test_by_bucket_it_is_the_same_map(dimensions):
    sketch, layers = CountSketch(dimensions, 3), gradients(6)
    found = sketch.empty(6, torch.device("cpu"))
    for name, layer in layers.items():
        sketch.add_by_bucket(found, name, layer)
    torch.testing.assert_close(found.T, sketched(sketch, layers))


def test_it_is_linear():
    sketch, one, other = CountSketch(16, 0), gradients(4, 1), gradients(4, 2)
    mixed = {name: 2 * one[name] - 3 * other[name] for name in SHAPES}
    expected = 2 * sketched(sketch, one) - 3 * sketched(sketch, other)
    torch.testing.assert_close(sketched(sketch, mixed), expected)


def test_layers_add_up_in_any_order_and_batching():
    sketch, layers = CountSketch(16, 0), gradients(5)
    whole = sketched(sketch, layers)
    backwards = {name: layers[name] for name in reversed(SHAPES)}
    torch.testing.assert_close(sketched(sketch, backwards), whole)
    one_by_one = [
        sketched(sketch, {name: layer[i : i + 1] for name, layer in layers.items()})
        for i in range(5)
    ]
    torch.testing.assert_close(torch.cat(one_by_one), whole)
    apart = sum(sketched(sketch, {name: layer}) for name, layer in layers.items())
    torch.testing.assert_close(torch.as_tensor(apart), whole)


def test_inner_products_are_unbiased_over_seeds():
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(2000, generator=generator)
    right = 0.8 * left + 0.6 * torch.randn(2000, generator=generator)
    pair = {"layer": torch.stack([left, right])}
    products = []
    for seed in range(400):
        rows = sketched(CountSketch(256, seed), pair)
        products.append([float(rows[0] @ rows[1]), float(rows[0] @ rows[0])])
    means = np.mean(products, axis=0)
    assert means[0] == pytest.approx(float(left @ right), rel=0.02)
    assert means[1] == pytest.approx(float(left @ left), rel=0.02)


def test_hashes_come_from_seed_and_name_alone():
    sketch = CountSketch(1024, 5)
    buckets, signs = sketch.hashes("layer", 500)
    for again in (CountSketch(1024, 5).hashes("layer", 500), sketch.hashes("layer", 500)):
        assert torch.equal(again[0], buckets)
        assert torch.equal(again[1], signs)
    longer, _ = sketch.hashes("layer", 900)
    assert torch.equal(longer[:500], buckets)
    others = (sketch.hashes("other", 500), CountSketch(1024, 6).hashes("layer", 500))
    for other in others:
        assert float((other[0] == buckets).float().mean()) < 0.05
        assert 0.3 < float((other[1] == signs).float().mean()) < 0.7


def test_buckets_are_even_and_signs_balanced():
    buckets, signs = CountSketch(8, 0).hashes("layer", 80_000)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.02
    counts = torch.bincount(buckets, minlength=8)
    assert len(counts) == 8
    assert int((counts - 10_000).abs().max()) < 500
    sums = torch.zeros(8).index_add_(0, buckets, signs)
    assert float(sums.abs().max()) < 500
