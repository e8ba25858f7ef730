"""Octets to values and back. Pure: no clock, no randomness, no input or output."""
