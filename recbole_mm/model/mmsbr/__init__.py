"""MMSBR: images, pseudo-modalities, price as distributions."""
