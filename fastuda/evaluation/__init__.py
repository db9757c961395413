"""Trained models: read, scored, asked for labels."""
