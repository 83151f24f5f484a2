"""What all settings share: the strict base of a section, and types of paths, texts and seeds."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationInfo,
    field_serializer,
)

from influcoder_assets.settings_errors import rejected

_SEED_LIMIT = 2**32 - 1


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Make a text path absolute: `~` is the user's folder, the rest is relative to the home."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        if isinstance(value, Path):
            return value
        raise rejected("this is no path")
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise rejected("whose home folder `~` means is unknown") from None
    home = (info.context or {}).get("home")
    return path if home is None else home / path


HomePath = Annotated[Path, BeforeValidator(_resolve)]
Text = Annotated[str, StringConstraints(pattern=r"\S")]
Seed = Annotated[int, Field(ge=0, le=_SEED_LIMIT)]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversions but int to float.

    A dump in JSON mode writes paths below the home as the user wrote them, relative to it, so no
    path of this machine gets into a fingerprint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    _home: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        self._home = (context or {}).get("home")

    @field_serializer("*", mode="wrap", when_used="json")
    def _relative_to_home(self, value: Any, handler: SerializerFunctionWrapHandler) -> Any:
        if isinstance(value, Path) and self._home and value.is_relative_to(self._home):
            return value.relative_to(self._home).as_posix()
        return handler(value)
