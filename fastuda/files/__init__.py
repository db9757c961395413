"""Files of users and of runs, read and written so that nothing waits, breaks or stays half-done."""
