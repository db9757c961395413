"""Studies: the rows of a table, each with several seeds, measured and put beside the paper's numbers."""
