"""One small module per group of families; each reads a configuration into an Architecture."""
