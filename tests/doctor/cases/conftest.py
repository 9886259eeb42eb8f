"""The scripts here are material, not tests: pytest must not import them, because an import would run them."""

collect_ignore_glob = ["buggy/*", "clean/*"]
