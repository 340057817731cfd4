"""Comparisons on the embedded scenes: the families with each other, and each with parts of itself left out."""
