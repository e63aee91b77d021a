"""Amazon reviews of 2014 and 2018, from the published files."""
