"""Where to cut: one layer for all, or one for each device."""
