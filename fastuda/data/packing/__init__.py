"""Data sets packed once, at the sizes that training reads."""
