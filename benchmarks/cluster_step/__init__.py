"""A cluster's step over MQTT and in one process: both sides, and what is noted of each."""
