"""Recipes that come with trueloop: ``trueloop train NAME``. Each is one file to copy and change."""
