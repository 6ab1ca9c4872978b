"""What a run writes down: directory, checkpoints, curves and events."""
