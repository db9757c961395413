"""Packed samples to batches."""
