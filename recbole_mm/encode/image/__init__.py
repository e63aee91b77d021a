"""Pictures of the items to vectors."""
