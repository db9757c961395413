"""The method: what one iteration computes, in the order in which it computes it (`step.py`)."""
