"""One device's agent: it listens, trains, answers and publishes."""
