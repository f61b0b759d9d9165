"""Honest measurement: interleaved pairs against dense, ratios with their spread, MAC ratio and accuracy beside them."""
