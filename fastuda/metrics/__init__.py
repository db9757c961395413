"""What an evaluation says of a model: IoU, boundaries, confidence."""

from fastuda.metrics.iou import Scores

__all__ = ["Scores"]
