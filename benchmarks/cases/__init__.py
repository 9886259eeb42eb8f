"""One file a case: ``run(how)`` measures it and gives its section of RESULTS.md."""
