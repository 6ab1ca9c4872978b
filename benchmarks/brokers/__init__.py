"""The brokers of this machine, each with a short real job."""
