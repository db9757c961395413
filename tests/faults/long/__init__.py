"""The long part: hundreds of faults of every kind put to the real commands; `python -m faults.long` from `tests/`."""
