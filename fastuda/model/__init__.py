"""The network, DeepLab-v2 on a dilated ResNet, and the weights files it can start from."""
