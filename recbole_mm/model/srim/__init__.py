"""SRIM: ID and modality graphs, joint inference."""
