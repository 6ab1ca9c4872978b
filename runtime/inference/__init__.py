"""A trained network in two halves: the one of the device, and what becomes of predictions."""
