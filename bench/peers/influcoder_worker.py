"""This project's own gradient features, from text to sketch, as the pipeline calls them."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.protocol import Compute, Row, serve
from influcoder_lib.models import ModelFiles
from influcoder_lib.samples import Sample
from influcoder_lib.teacher.loading import open_teacher
from influcoder_lib.teacher.settings import TeacherSettings


def prepare(options: dict[str, Any]) -> Compute:
    """Open the teacher on the model of `model`; every other option is one of its settings."""
    folder = Path(options.pop("model"))
    settings = TeacherSettings(**options)
    teacher = open_teacher(ModelFiles(folder.name, folder, None), folder, settings)

    def compute(rows: list[Row]) -> np.ndarray:
        samples = [Sample(str(number), row.prompt, row.response) for number, row in enumerate(rows)]
        found = np.zeros((len(rows), settings.sketch_dimensions), np.float32)
        for batch in teacher.features(samples):
            found[batch.indices] = batch.rows
        return found

    return compute


if __name__ == "__main__":
    serve(prepare)
