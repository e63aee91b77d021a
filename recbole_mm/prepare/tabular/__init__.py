"""A table of interactions of any shop, and a table of its items."""
