"""The message bus: its contract, and what keeps it in memory and over MQTT."""
