"""A report as one HTML page that opens without a network, in light and dark, on a phone and read aloud."""
