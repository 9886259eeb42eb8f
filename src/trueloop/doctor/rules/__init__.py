"""One mistake, one file: what it is, how it is known, scripts that fire and scripts that stay silent."""
