"""Settings that make a network, views and a run as small as they can be.

Tests put their own behind them: of two values of a field the later holds.
"""

from __future__ import annotations

NETWORK = ["model.kind=deeplab-v2", "model.depth=18", "model.width=0.125", "model.weights=random"]
"""A ResNet-18 of an eighth of the width, from a random start."""
VIEWS = ["views.source_size=[64, 32]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]"]
DEMO = ["demo.num_source=6", "demo.num_source_val=1", "demo.num_target=5", "demo.num_val=3", "demo.size=[64, 32]"]
"""Fifteen images in all."""
SGD = ["warmup.optimizer.kind=sgd", "train.optimizer.kind=sgd"]
RUN = [*DEMO, *VIEWS, "eval.size=[64, 32]", *NETWORK, *SGD, "runtime.loader_threads=1"]
"""A run of the demo, but for its iterations."""
