"""Numbers of one model: ranks, metrics, groups of rows, parts of the score, how sure they are."""
