"""Parts that any model's score can take besides its own: transitions and likeness of texts."""
