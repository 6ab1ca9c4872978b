"""Networks as sequences of named layers that can be cut; the only shared torch code."""
