"""What a device measures of itself: machine, compute and link."""
