"""Settings that users tweak, as package data."""
