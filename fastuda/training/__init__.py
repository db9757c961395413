"""A whole run: its stages, their iterations, their log."""
