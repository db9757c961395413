"""The five operations of the adaptation step that are not convolutions, usable on their own.

Each folder holds one operation: `__init__.py` checks its arguments and chooses an implementation,
`reference.py` is the specification in plain PyTorch, and runs on any device.
"""
