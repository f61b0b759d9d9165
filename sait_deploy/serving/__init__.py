"""The server: batches made of tokens, and an operating point that follows the load."""
