"""An encoder as it comes, and a kernel student of it; fitted once, as no test changes them."""

import pytest

from influcoder_lib.student.encoder import InfluenceEncoder
from influcoder_lib.student.kernel import fit
from tests.lib.student.kernel_students import TRAIN
from tests.tiny import tiny_encoder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> InfluenceEncoder:
    return InfluenceEncoder.load(tiny_encoder(tmp_path_factory.mktemp("tiny")), 24, "float32")


@pytest.fixture(scope="session")
def student(base: InfluenceEncoder) -> InfluenceEncoder:
    return fit(base, TRAIN, 24)[0]
