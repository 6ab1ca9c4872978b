"""Facts with units; imports nothing of ours."""
