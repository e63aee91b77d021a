"""Texts of the items to vectors."""
