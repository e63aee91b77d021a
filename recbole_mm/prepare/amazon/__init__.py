"""Amazon reviews of 2014, 2018 and 2023, from the published files."""
