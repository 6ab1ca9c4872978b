"""A device made slower than this machine: its compute and its link."""
