"""Iterations run: fed, captured, read back, and fit into memory; what an iteration is stands in `method/`."""
