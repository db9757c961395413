"""Measurements of fastuda, one file a question; results are rows of JSON under bench/results/."""
