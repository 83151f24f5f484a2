"""bergson 2.5.1, in the environment that has it: projected gradients of the blocks' linear layers.

Nothing is written to disk but a counter that bergson writes at the end of every call. Projection
matrices are kept between calls, and so made in the warm-up.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

from bergson import CollectorComputer, IndexConfig, InMemoryCollector, PreprocessConfig
from bergson.data import allocate_batches
from bergson.utils.worker_utils import processor_for, setup_model_and_peft
from datasets import Dataset

from bench.peers.protocol import Compute, Row, serve

_PROJECTION = 16


def prepare(options: dict[str, Any]) -> Compute:
    """Load the model of `model`, in `precision`, for batches of `tokens_per_batch`."""
    logging.disable(logging.INFO)
    settings = IndexConfig(
        run_path=str(Path(tempfile.mkdtemp(), "run")),
        model=options["model"],
        precision=options["precision"],
        model_kwargs=f"attn_implementation={options['attention']}",
        token_batch_size=options["tokens_per_batch"],
        projection_dim=_PROJECTION,
        loss_reduction="mean",
    )
    settings.partial_run_path.mkdir(parents=True)
    model, _ = setup_model_and_peft(settings)
    processor = processor_for(settings)

    def compute(rows: list[Row]) -> None:
        data = Dataset.from_dict(
            {"input_ids": [row.ids for row in rows], "labels": [labels(row) for row in rows]}
        )
        collector = InMemoryCollector(
            model=model.base_model,
            data=data,
            cfg=settings,
            processor=processor,
            preprocess_cfg=PreprocessConfig(unit_normalize=True),
        )
        lengths = [len(row.ids) for row in rows]
        batches = allocate_batches(lengths, settings.token_batch_size)
        computer = CollectorComputer(
            model, data, collector=collector, batches=batches, cfg=settings
        )
        # The features are now in `collector.gradients`, in memory.
        computer.run_with_collector_hooks()

    return compute


def labels(row: Row) -> list[int]:
    """Targets of the response only."""
    return [-100] * row.loss_start + row.ids[row.loss_start :]


if __name__ == "__main__":
    serve(prepare)
