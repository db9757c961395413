"""The `fastuda` command: one file a command; a command parses and calls, it computes nothing."""
