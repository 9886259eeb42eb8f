"""The command line: one file per verb. It may import everything; nothing imports it."""
