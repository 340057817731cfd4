"""Pages and tables for people, from plain values."""
