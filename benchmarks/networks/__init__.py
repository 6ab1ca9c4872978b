"""Networks as their libraries give them, each loaded, cut and trained on both engines."""
