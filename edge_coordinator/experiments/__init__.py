"""Methods side by side: the same simulation run in several ways, measured and shown."""
