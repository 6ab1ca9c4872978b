"""The page in the browser, and its small server: a client of the topics, or of a run's record."""
