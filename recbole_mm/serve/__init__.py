"""A trained model in use: packs, recommendations, HTTP."""
