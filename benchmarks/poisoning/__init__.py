"""One device of a run that sends poison, and what the run makes of it."""
