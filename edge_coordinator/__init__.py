"""The program the edge server runs."""
