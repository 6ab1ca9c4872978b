"""Peers that lie, forge and flood, against real programs on a real Mosquitto."""
