"""Several processes that train, score or predict as one."""
