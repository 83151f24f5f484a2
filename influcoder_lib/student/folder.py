"""An encoder's folder, read without foreign code, pickles or network."""

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, StaticEmbedding, Transformer

from influcoder_lib import hardware
from influcoder_lib.errors import ModelError
from influcoder_lib.student.head import KernelHead

_HEAD = f"{KernelHead.__module__}.{KernelHead.__name__}"
_STATIC = f".{StaticEmbedding.__name__}"


def open_model(folder: Path) -> SentenceTransformer:
    """The model of a local folder, in float32, on the GPU if there is one.

    Raises:
        ModelError: the folder cannot be loaded, has a module with pickled weights only, or cuts its
            vectors (`truncate_dim`).
    """
    _refuse_pickles(folder)
    try:
        path = folder.resolve(strict=True)
        listed = path / "modules.json"
        modules = json.loads(listed.read_text()) if listed.is_file() else []
        has_head = any(each["type"] == _HEAD for each in modules)
        model = _with_head(path, modules) if has_head else _standard(path)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        raise ModelError(f"The encoder cannot be loaded: {error}", where=str(folder)) from error
    _refuse_cut_vectors(model, folder)
    return model


def _standard(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(
        str(folder),
        device=hardware.device().type,
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs=_weights(),
    )


def _with_head(folder: Path, modules: list[dict[str, Any]]) -> SentenceTransformer:
    """sentence-transformers refuses modules that are not its own, so this puts them together."""
    words, head = (_inside(folder, str(each["path"])) for each in modules[:2])
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    return SentenceTransformer(
        modules=[
            _static(words) if str(modules[0]["type"]).endswith(_STATIC) else _transformer(words),
            KernelHead.load(str(head), local_files_only=True),
            Normalize(),
        ],
        device=hardware.device().type,
        prompts=settings["prompts"],
        default_prompt_name=settings["default_prompt_name"],
    )


def _inside(folder: Path, path: str) -> Path:
    if Path(path).name != path:
        raise ValueError(f"modules.json has a module at {path!r}, outside the folder")
    return folder / path


def _static(folder: Path) -> StaticEmbedding:
    return StaticEmbedding.load(str(folder), local_files_only=True)


def _transformer(folder: Path) -> Transformer:
    return Transformer.load(
        str(folder), trust_remote_code=False, local_files_only=True, model_kwargs=_weights()
    )


def _weights() -> dict[str, Any]:
    return {"use_safetensors": True, "dtype": torch.float32}


def _refuse_pickles(folder: Path) -> None:
    """sentence-transformers falls back to a pickle for a module that has no safetensors file."""
    for path in sorted(folder.rglob("pytorch_model.bin")):
        if not (path.parent / "model.safetensors").is_file():
            raise ModelError(
                "A module of the encoder has its weights only as a pickle.",
                where=str(path),
                allowed="model.safetensors: a pickle can run code when it is read",
                fix="load and save the encoder once with sentence-transformers",
            )


def _refuse_cut_vectors(model: SentenceTransformer, folder: Path) -> None:
    if model.truncate_dim is not None:
        raise ModelError(
            f"The encoder cuts its vectors to {model.truncate_dim} numbers.",
            where=f"{folder / 'config_sentence_transformers.json'}, key truncate_dim",
            fix="remove the key: all of a vector is used",
        )
