"""Which number format a machine computes in, and how its threads wait, when nobody says."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from influcoder_lib import hardware, target_model
from influcoder_lib.samples import Sample
from influcoder_lib.student.encoder import InfluenceEncoder
from tests.tiny import tiny_encoder, tiny_target

CPU = torch.device("cpu")
SIZE = 256


def pretend(monkeypatch, *instructions):
    found = {"avx2": True, **dict.fromkeys(instructions, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)


def seconds(dtype):
    left = torch.ones(SIZE, SIZE, dtype=dtype)
    left @ left
    begin = time.perf_counter()
    for _ in range(5):
        left @ left
    return time.perf_counter() - begin


def test_what_this_machine_is_given_is_not_far_from_its_best():
    best = min(seconds(dtype) for dtype in (torch.float32, torch.bfloat16) for _ in range(3))
    own = min(seconds(hardware.dtype_of("auto", CPU)) for _ in range(3))
    assert own < 10 * best


@pytest.mark.parametrize("instructions", [["amx_bf16"], ["avx512_bf16", "amx_bf16"], ["bf16"]])
def test_a_cpu_with_bfloat16_uses_it(monkeypatch, instructions):
    pretend(monkeypatch, *instructions)
    assert hardware.dtype_of("auto", CPU) == torch.bfloat16
    assert hardware.dtype_of("float32", CPU) == torch.float32


def test_a_cpu_without_it_computes_in_float32_unless_told_otherwise(monkeypatch, tmp_path, caplog):
    pretend(monkeypatch, "avx512_f")
    folder = tiny_target(tmp_path / "target", "llama")
    assert target_model.load_target(folder, "auto").dtype == torch.float32
    assert caplog.messages == []
    assert target_model.load_target(folder, "bfloat16").dtype == torch.bfloat16
    assert "target_model.dtype: auto" in caplog.text


def test_machines_of_both_kinds_take_one_encoder_for_the_same(monkeypatch, tmp_path):
    encoder = InfluenceEncoder.load(tiny_encoder(tmp_path / "encoder"), 48)
    samples = [Sample(str(number), "a question", "an answer " * number) for number in range(1, 9)]
    prints, vectors = [], []
    for instructions in ([], ["amx_bf16"]):
        pretend(monkeypatch, *instructions)
        prints.append(encoder.fingerprint)
        vectors.append(encoder.encode(samples))
    assert prints[0] == prints[1]
    assert not np.array_equal(*vectors)
    np.testing.assert_allclose(*vectors, atol=0.02)


@pytest.mark.parametrize("warn_only", [True, False])
def test_what_is_asked_of_kernels_ends_with_the_block_even_by_an_error(warn_only):
    def asked():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.backends.cuda.cudnn_sdp_enabled(),
        )

    def fail():
        with hardware.deterministic(warn_only):
            found.append(asked())
            raise KeyError

    before, found = asked(), []
    with pytest.raises(KeyError):
        fail()
    assert found == [(True, warn_only, False, False)]
    assert asked() == before


@pytest.mark.parametrize(
    ("kind", "asked", "window", "tokens"),
    [
        ("cpu", None, 512, 1024),
        ("cpu", None, 4096, 4096),
        ("cpu", 600, 512, 600),
        ("cuda", None, 512, 32_768),
        ("cuda", 600, 512, 600),
    ],
)
def test_a_batch_of_gradients_suits_the_device_unless_told_otherwise(
    monkeypatch, kind, asked, window, tokens
):
    monkeypatch.setattr(hardware, "device", lambda: torch.device(kind))
    assert hardware.gradient_tokens(asked, window) == tokens


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings libgomp on Linux")
@pytest.mark.parametrize(
    ("chosen", "spins"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"),
    ],
)
def test_threads_spin_briefly_unless_told_otherwise(chosen, spins):
    own = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    asked = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [sys.executable, "-c", "import influcoder_lib.hardware"],
        env={**asked, "OMP_DISPLAY_ENV": "VERBOSE", **chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)) == {spins}
