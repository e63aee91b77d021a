"""The made-up shop that stands in for Cellphones."""
