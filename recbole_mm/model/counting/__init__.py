"""Models without gradient descent: counts in training sessions, and cosines of the items' texts."""
