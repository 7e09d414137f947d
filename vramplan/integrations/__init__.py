"""What runs inside other people's programs: the memory watcher for transformers' Trainer."""
