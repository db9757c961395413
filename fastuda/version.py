"""The version of fastuda, as `pyproject.toml` and `CITATION.cff` have it."""

__version__ = "0.1.0"
