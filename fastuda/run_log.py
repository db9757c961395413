"""The record of a run: one JSON row a line in log.jsonl, and the same numbers as TensorBoard events."""

from __future__ import annotations

import time
from typing import Any

from torch.utils.tensorboard import SummaryWriter

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

    def training(self, stage: str, iteration: int, losses: dict[str, float], rate: float, lr: float) -> None:
        """Mean losses since the last row, iterations a second, and the backbone's learning rate."""
        row = {"stage": stage, "iteration": iteration, "losses": losses, "iterations_per_second": rate, "lr": lr}
        self._folder.append_log({**row, "time": time.time()})
        for name, value in losses.items():
            self._writer.add_scalar(f"{stage}/loss/{name}", value, iteration)
        self._writer.add_scalar(f"{stage}/iterations_per_second", rate, iteration)
        self._writer.add_scalar(f"{stage}/lr", lr, iteration)

    def evaluation(self, stage: str, iteration: int, scores: Scores) -> None:
        """One evaluation's scores."""
        row = {"stage": stage, "iteration": iteration, "scores": scores.to_json()}
        self._folder.append_log({**row, "time": time.time()})
        self._writer.add_scalar(f"{stage}/miou", scores.miou, iteration)
        for name, value in scores.iou.items():
            self._writer.add_scalar(f"{stage}/iou/{name}", value, iteration)
