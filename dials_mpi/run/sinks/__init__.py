"""Where a run reports to: the run file, the console and others."""
