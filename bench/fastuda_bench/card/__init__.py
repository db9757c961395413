"""The whole proof of speed on one machine, part by part, each in a process of its own."""
