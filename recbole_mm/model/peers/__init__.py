"""Models of others that read item vectors, to be compared with."""
