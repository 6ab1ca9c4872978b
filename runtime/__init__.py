"""What both ends of the bus share."""
