"""A site in Home Assistant: what it discovers by MQTT, and when it is told."""
