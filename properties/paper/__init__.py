"""Tables and figures of papers, for `recbole-mm paper`."""
