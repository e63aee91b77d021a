"""Defaults and presets of each model."""
