"""Rounds of real training: clusters over the bus, planned, timed and reported."""
