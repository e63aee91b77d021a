"""Parts that any model's score can take besides its own: counted transitions and likeness of texts."""
