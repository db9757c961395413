"""SegFormer's Mix Transformer with a head of choice: the network of SegFormer, DAFormer, HRDA and MIC."""
