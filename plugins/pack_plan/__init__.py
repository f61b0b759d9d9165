"""Where each image's lanes find their packed rows, where each row finds its lane, which lanes are real."""
