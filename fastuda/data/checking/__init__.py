"""Whether a data set is sound: every file looked at, and what that found."""
