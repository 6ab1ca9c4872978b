"""Devices and a site that are played in one process, honest and not."""
