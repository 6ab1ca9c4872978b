"""Who trains with whom: where sampling starts, how swaps are drawn and taken, what is kept."""
