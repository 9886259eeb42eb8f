"""Each probe listens to one part of torch and tells the trace: ``install`` returns what takes it out."""
