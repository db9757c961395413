"""What a run leaves on disk, and what it goes on from."""
