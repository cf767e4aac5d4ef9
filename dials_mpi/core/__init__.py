"""The base of the package: errors, signals, logs, compiled functions, random streams, timing, provenance."""
