"""Side by side with the hand-written loop and the peers; ``run.py`` is the command."""
