"""Scenario files and recordings of links: read, checked, and refused in one sentence."""
