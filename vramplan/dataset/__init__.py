"""What a data set asks of a card: how long its samples are, how long its batches, and which of them fit."""
