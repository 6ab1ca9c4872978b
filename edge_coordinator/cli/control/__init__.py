"""The commands that look after runs, devices and a running coordinator, and their flags."""
