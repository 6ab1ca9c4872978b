"""Tables that `cpsl` prints: what a network's cuts cost, and who holds which samples."""
