"""Data sources and their partition onto devices."""
