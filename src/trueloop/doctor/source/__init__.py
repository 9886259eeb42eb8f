"""Reads code: the same mistakes, known from the text alone. Imports no torch."""
