"""`python -m fastuda_cli`: what torchrun starts, `torchrun --nproc-per-node N -m fastuda_cli train …`."""

from __future__ import annotations

from fastuda_cli.main import app

app()
