"""The machine and the process under a run."""
