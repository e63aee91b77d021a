"""Recommendations over HTTP; needs the extra ``serve``."""
