"""What is counted in training sessions: co-occurrence, distance, neighbours, propagation."""
