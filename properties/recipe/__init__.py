"""What a data set needs."""
