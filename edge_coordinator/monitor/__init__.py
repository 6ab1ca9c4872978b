"""Watching a site by what is published there."""
