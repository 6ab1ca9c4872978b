"""What the device side takes: engines beside each other, the export, and the link."""
