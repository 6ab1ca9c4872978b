"""The commands of `cpsl`, their flags, and what they print."""
