"""Frames on their way, in chunks: out, in, and what is asked of them meanwhile."""
