"""A job: its file, its settings, and all that they name looked up."""
