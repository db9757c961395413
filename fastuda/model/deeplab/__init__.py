"""DeepLab-v2 on a dilated ResNet: the paper's network, and whose weights it takes."""
