"""`data demo`: two drawn domains of street scenes, for a first run without a download."""

from fastuda.demo.write import DRAWING, draw_demo

__all__ = ["DRAWING", "draw_demo"]
