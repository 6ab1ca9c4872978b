"""Real training under a virtual clock: one process, no broker, no waiting."""
