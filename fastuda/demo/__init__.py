"""`data demo`: two drawn domains of street scenes, for a first run without a download."""

from fastuda.demo.write import draw_demo

__all__ = ["draw_demo"]
