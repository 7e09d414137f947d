"""What a model consists of and what a fine-tuning of it trains: the answers that `vramplan inspect` shows."""
