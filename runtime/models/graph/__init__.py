"""Any module as a network that can be cut: its graph, parted where one tensor crosses."""
