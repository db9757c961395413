"""The `fastuda` command: one file a command; a command parses and calls, it computes nothing."""

import os

# Read when torch loads OpenMP, which commands do later. Threads that spin while they wait take the processor from the
# thread that they wait for wherever something else runs beside them: an adaptation on two cores beside two busy
# processes took 2 to 14 times as long as with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
