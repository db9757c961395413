"""What an iteration or an evaluation needs, and what is said when it is not there."""
