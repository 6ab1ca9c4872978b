"""What ten who watch a run cost its coordinator, in pairs with nobody watching."""
