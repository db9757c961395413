"""Classifiers over feature maps of several resolutions, for networks that have such."""
