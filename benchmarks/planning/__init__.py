"""How long plans take, and how good they are beside the best."""
