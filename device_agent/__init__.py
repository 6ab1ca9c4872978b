"""The program a device runs; importable without torch."""
