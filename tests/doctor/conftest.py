"""The cases are scripts, not tests: they are run, never imported."""

collect_ignore_glob = ["cases/*"]
