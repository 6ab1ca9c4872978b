"""What a run leaves to be used: its model whole, or in two halves."""
