"""A run's figures, round by round, in the tools that people compare experiments with."""
