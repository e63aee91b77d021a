"""Pages to look at: HTML that escapes what it is given, charts, and one style; no network."""
