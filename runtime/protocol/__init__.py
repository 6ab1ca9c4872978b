"""Both halves of the conversation, without I/O and without a clock."""
