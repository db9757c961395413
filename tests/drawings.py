"""Label maps drawn row by row, a digit a class and `.` for 255."""

from __future__ import annotations

import torch
from torch import Tensor


def label_map(*rows: str) -> Tensor:
    return torch.tensor([[255 if cell == "." else int(cell) for cell in row] for row in rows], dtype=torch.uint8)[None]
