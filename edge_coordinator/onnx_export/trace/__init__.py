"""From a network to the flat graph of one step, cut in two."""
