"""Stage 2: which images of the web are kept, decided in bounded memory and time."""
