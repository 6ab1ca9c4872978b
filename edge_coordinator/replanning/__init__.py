"""Planning as a run goes on: states in, corrections learned, cuts chosen again."""
