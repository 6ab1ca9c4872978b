"""What `benchmarks.chaos` does to real programs: one kind of fault a module."""
