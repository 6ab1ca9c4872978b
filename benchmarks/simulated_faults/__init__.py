"""Both halves of the protocol for several devices, in one process and without a clock."""
