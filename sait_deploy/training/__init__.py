"""Dense/sparse training: one set of weights for every density, distilled so that an early block learns to select."""
