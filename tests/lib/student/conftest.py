"""An encoder as it comes, and students fitted to it; made once, as no test changes them."""

import pytest

from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import fit
from influcoder_lib.student.static import static_of
from tests.lib.student.kernel_students import TRAIN
from tests.tiny import tiny_encoder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> InfluenceEncoder:
    return InfluenceEncoder.load(tiny_encoder(tmp_path_factory.mktemp("tiny")), 24, "float32")


@pytest.fixture(params=[InfluenceEncoder.copy, static_of], ids=["kernel", "static"])
def words(request: pytest.FixtureRequest, base: InfluenceEncoder) -> InfluenceEncoder:
    """What is fitted on: the encoder, and a table of its token vectors."""
    return request.param(base)


@pytest.fixture(scope="session")
def kernel_student(base: InfluenceEncoder) -> InfluenceEncoder:
    return fit(base, TRAIN, 24)[0]


@pytest.fixture(scope="session")
def static_student(base: InfluenceEncoder) -> InfluenceEncoder:
    return fit(static_of(base), TRAIN, 24)[0]


@pytest.fixture(params=["kernel", "static"])
def student(request: pytest.FixtureRequest) -> InfluenceEncoder:
    return request.getfixturevalue(f"{request.param}_student")
