"""Networks, a family a folder, and the weights files that they start from."""
