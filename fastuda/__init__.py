"""Unsupervised domain adaptation for semantic segmentation: the EHTDI method, made fast."""

__version__ = "0.1.0"
