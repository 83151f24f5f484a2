"""One complete refresh of the tiny home, shared by every test that only reads it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from influcoder_assets import champion
from influcoder_assets.workspace import Workspace
from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.teacher.gradients import GradientFeatures
from tests.assets import tiny_home
from tests.assets.tiny_home import Refreshed


@dataclass(frozen=True)
class Done:
    """A home that was refreshed once, what that refresh did, and the folder it was started in.

    Tests do not change it.
    """

    home: Path
    first: Refreshed
    elsewhere: Path

    @property
    def workspace(self) -> Workspace:
        """The home, opened."""
        return Workspace.open(self.home)


@pytest.fixture(scope="session", autouse=True)
def tiny_process() -> Iterator[None]:
    """No garbage collection after every artifact (for real models), and the home's own MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("influcoder_lib.memory.release", lambda: None)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    home = tiny_home.build_home(tmp_path_factory.mktemp("done") / "home")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        return Done(home, tiny_home.refresh(home), elsewhere)


@pytest.fixture
def refreshed_home(done: Done, tmp_path: Path) -> Path:
    """A copy of the refreshed home, to be changed."""
    return tiny_home.copy_home(done.home, tmp_path / "home")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_home.build_home(tmp_path_factory.mktemp("pristine") / "home")


@pytest.fixture
def new_home(pristine: Path, tmp_path: Path) -> Path:
    """A home in which nothing was made yet, to be changed."""
    return tiny_home.copy_home(pristine, tmp_path / "home")


@pytest.fixture
def change_settings() -> Callable[[Path, str, object], None]:
    """Sets one key, given with dots, in a home's influcoder.yaml."""

    def change(home: Path, dotted: str, value: object) -> None:
        settings = tiny_home.settings()
        section = settings
        *sections, last = dotted.split(".")
        for name in sections:
            section = section[name]
        section[last] = value
        tiny_home.write_settings(home, settings)

    return change


@pytest.fixture
def win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every challenger that is judged wins."""
    monkeypatch.setattr(champion, "_best", lambda merits, standing: "challenger")


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every challenger that is judged loses."""
    monkeypatch.setattr(champion, "_best", lambda merits, standing: standing)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a model to compute something fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was used")

    monkeypatch.setattr(InfluenceEncoder, "load", refuse)
    monkeypatch.setattr(GradientFeatures, "features", refuse)
    monkeypatch.setattr("influcoder_lib.teacher.loading.open_teacher", refuse)
