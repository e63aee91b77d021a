"""Search spaces of `recbole-mm tune`."""
