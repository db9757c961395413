"""Checkpoints: what a run goes on from after it was stopped, killed or cut off (protocol row 4)."""

from __future__ import annotations

from fastuda.runs.checkpoint.model_file import save_model
from fastuda.runs.checkpoint.state_file import SavedState, read_state, restore_state, save_state

__all__ = ["SavedState", "read_state", "restore_state", "save_model", "save_state"]
