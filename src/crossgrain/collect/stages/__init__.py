"""The stages of collecting, one file each: what a task of it reads, does and leaves for the next."""
