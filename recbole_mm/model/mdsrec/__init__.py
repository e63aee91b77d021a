"""MDSRec: modality-aware item graphs, interest centres."""
