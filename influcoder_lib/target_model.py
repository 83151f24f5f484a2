"""Loading the target model, whose gradients are taken: its weights unpacked once, frozen, in the
number format and on the device that it computes with."""

import copy
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from influcoder_lib import fingerprint, fused_norms, hardware
from influcoder_lib.atomic import part_of
from influcoder_lib.errors import ModelError, listed
from influcoder_lib.models import ModelFiles
from influcoder_lib.precision import Precision

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetModel:
    """A decoder ready for gradients, its tokenizer, and the dtype of its matrix products."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype = torch.float32

    def positions(self) -> int | None:
        """How many tokens a row may have, where the model looks its places up in a table."""
        words = self.model.get_input_embeddings()
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        tables = [
            module.num_embeddings
            for module in self.model.modules()
            if isinstance(module, torch.nn.Embedding) and module is not words
        ]
        # Sines that were worked out beforehand (GPT-J, CodeGen).
        tables += [len(buffer) for buffer in self.model.buffers() if buffer.ndim == 2]
        # Some tables begin with a few rows for padding (OPT).
        return most if most and any(most <= rows < most + 8 for rows in tables) else None


def unpack(files: ModelFiles, cache: Path) -> Path:
    """Folder of a decoder as float32 safetensors; a GGUF file is dequantised once into `cache`.

    Raises:
        ModelError: the GGUF file cannot be read.
    """
    if files.gguf is None:
        return files.folder
    folder = cache / fingerprint.of_file(files.gguf)
    if (folder / "config.json").is_file():
        return folder
    from transformers import GgufConfig

    source = {"gguf_file": files.gguf.name, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            **source,
        )
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"The GGUF file cannot be read: {error}", where=str(files.gguf)) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    part = part_of(folder)
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.replace(folder)
    except OSError:
        # Another process may have been faster.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def load_target(folder: Path, precision: Precision) -> TargetModel:
    """Load a decoder for gradients: evaluation mode, frozen weights, on the GPU if there is one.

    Raises:
        ModelError: the folder holds no causal language model that transformers knows, or not all
            of its weights; or they do not fit into the GPU's memory.
    """
    device = hardware.device()
    model, tokenizer = _read_decoder(folder)
    model.requires_grad_(False)
    dtype = hardware.dtype_of(precision, device)
    if dtype == torch.bfloat16:
        if not hardware.has_bfloat16(device):
            _log.warning(
                "This machine has no bfloat16: it computes float32 many times faster. The setting"
                " `target_model.dtype: auto` takes what a machine is quick in."
            )
        _narrow(model)
    try:
        model.eval().to(device)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The target model does not fit into the GPU's memory: {error}",
            where=str(folder),
            fix="take a smaller target model, or free the GPU of other processes",
        ) from error
    fused_norms.fuse(model)
    return TargetModel(model, tokenizer, dtype)


def _read_decoder(folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """A decoder in float32 on the CPU, all its weights found, and its tokenizer."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The target model cannot be loaded: {error}",
            where=str(folder),
            allowed="a causal language model that transformers supports without remote code",
        ) from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"The target model lacks weights: {listed(missing)}.",
            where=str(folder),
            allowed="the complete weights of the architecture that config.json names",
        )
    return model, tokenizer


def _narrow(model: Any) -> None:
    """Hold the weights of linear layers in bfloat16, the head's in a copy if embeddings share them.

    Embeddings, norms and so the residual stream stay in float32: that halves the distance of a
    gradient feature to its float32 twin at no cost in matrix products.
    """
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        model.set_output_embeddings(copy.deepcopy(head))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            module.to(torch.bfloat16)


def quiet() -> None:
    """Silence transformers' progress bars and advice; its errors still come through."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
