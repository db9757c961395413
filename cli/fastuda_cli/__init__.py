"""The `fastuda` command: one file a command; a command parses and calls, it computes nothing."""

import os

# Read when torch loads OpenMP, which commands do later. Threads that spin long while they wait take the processor from
# the thread that they wait for, wherever something else runs beside them, and BatchNorm's many small loops then take
# a hundred times as long; threads that sleep at once pay for waking up at every convolution, on a quiet machine too.
# These spin a short while, which costs a quiet machine about a tenth.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
