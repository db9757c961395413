"""The record of a run: one JSON row a line in log.jsonl, and the same numbers as TensorBoard events."""

from __future__ import annotations

import time
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fastuda.engine.readback import Reading
from fastuda.metrics import Scores
from fastuda.run_folder import RunFolder


class RunLog:
    """Writes to a run's folder while entered."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> RunLog:
        self._writer = SummaryWriter(str(self._folder.tensorboard))
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def training(self, stage: str, reading: Reading) -> None:
        """Mean losses since the last row, iterations a second, share of waiting for data, and learning rate."""
        scalars = {
            "iterations_per_second": reading.iterations_per_second,
            "waiting_for_data": reading.waited,
            "lr": reading.lr,
        }
        row = {"stage": stage, "iteration": reading.iteration, "losses": reading.losses, **scalars}
        self._folder.append_log({**row, "time": time.time()})
        for name, value in {**{f"loss/{name}": loss for name, loss in reading.losses.items()}, **scalars}.items():
            self._writer.add_scalar(f"{stage}/{name}", value, reading.iteration)

    def evaluation(self, stage: str, iteration: int, scores: Scores) -> None:
        """One evaluation's scores."""
        row = {"stage": stage, "iteration": iteration, "scores": scores.to_json()}
        self._folder.append_log({**row, "time": time.time()})
        self._writer.add_scalar(f"{stage}/miou", scores.miou, iteration)
        for name, value in scores.iou.items():
            self._writer.add_scalar(f"{stage}/iou/{name}", value, iteration)
