"""Opening the teacher: the batch that suits the device."""

import pytest
import torch

from influcoder_lib import hardware
from influcoder_lib.teacher.loading import gradient_tokens


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
    assert gradient_tokens(asked, window) == tokens
