"""The device that models run on, the number format of matrix products that it is quick in, and how
it is made to compute the same bytes each time."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from influcoder_lib.precision import Precision

# Without it cuBLAS may choose another kernel the second time; it is read when a GPU is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Names of torch.cpu.get_capabilities: x86-64 with AVX-512 or AMX, and 64-bit ARM.
_BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")

# A CPU gains nothing from more; a GPU has done with fewer before it is told what comes next.
_GRADIENT_TOKENS = {"cpu": 1024, "cuda": 32_768}


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_memory() -> float:
    """Bytes of the device's own memory, into which a batch is halved; infinite for a CPU."""
    found = device()
    if found.type == "cpu":
        return float("inf")
    return float(torch.cuda.get_device_properties(found).total_memory)


def gradient_tokens(asked: int | None, window: int) -> int:
    """Tokens in a batch of gradients, of samples of at most `window`: as many as are asked for, or
    what suits the device that models run on."""
    return asked or max(window, _GRADIENT_TOKENS[device().type])


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device itself multiplies bfloat16. A CPU that does not is some 50 times slower
    in it than in float32."""
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products on this device."""
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.float32 if precision == "float32" else torch.bfloat16


def matmul_rate(precision: Precision) -> float:
    """Floating-point operations a second of a square matrix product where models run."""
    where = device()
    size = 8192 if where.type == "cuda" else 1024
    left = torch.ones(size, size, dtype=dtype_of(precision, where), device=where)

    def product() -> None:
        # One number is waited for: a GPU returns from a product before it is done.
        (left @ left)[0, 0].item()

    product()
    begin, rounds = time.perf_counter(), 0
    while time.perf_counter() - begin < 0.1:
        product()
        rounds += 1
    return rounds * 2 * size**3 / (time.perf_counter() - begin)


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """A context in which matrix products are computed in this dtype, float32 or bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


@contextmanager
def deterministic(warn_only: bool = True) -> Iterator[None]:
    """A context in which equal inputs give equal bytes on the same machine.

    A GPU adds in any order unless it is asked not to; cuDNN's attention knows no other way, so
    another is taken. Where an operation has no such kernel torch warns and goes on, or raises a
    RuntimeError; attention backward has one that is taken only if nothing may go on without.
    """
    algorithms = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    # A property of the module, which no type checker knows.
    options: Any = torch.utils.deterministic
    filling = options.fill_uninitialized_memory
    attention = torch.backends.cuda.cudnn_sdp_enabled()
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    options.fill_uninitialized_memory = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=only_warned)
        options.fill_uninitialized_memory = filling
        torch.backends.cuda.enable_cudnn_sdp(attention)


def threads() -> int:
    """How many threads one operation on tensors has in this process."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let one operation on tensors have that many threads."""
    torch.set_num_threads(count)
