"""What the best possible round takes at least."""
