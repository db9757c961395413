"""Networks of a transformer encoder and a head: what SegFormer and the DINOs have in common."""
