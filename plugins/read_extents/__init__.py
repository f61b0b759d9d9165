"""The seam: how many rows were kept, and how many the longest image keeps, as shapes."""
