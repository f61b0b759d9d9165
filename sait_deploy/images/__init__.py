"""Images: reading and preprocessing them, data sets of them, and pictures of the tokens that pruning keeps."""
