"""What a run has to say afterwards. Reads numbers and files; knows no torch."""
