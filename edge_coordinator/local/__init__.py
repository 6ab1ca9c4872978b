"""A whole run on one machine: a broker, the agents and the coordinator."""
