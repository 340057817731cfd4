"""Layers that models share. Blocks take plain numbers, never a config."""
