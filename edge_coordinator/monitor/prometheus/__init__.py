"""A site for Prometheus: `/metrics` of the coordinator itself, or of any site that is watched."""
