"""A program as a service: what it ends with, what it logs, and how it says that it is alive."""
