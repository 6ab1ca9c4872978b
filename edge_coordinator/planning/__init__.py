"""Plans as pure functions of profiles and a random generator."""
