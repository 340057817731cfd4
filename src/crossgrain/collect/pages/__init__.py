"""Stage 1: from archives, folders and lists of pages to image candidates with the texts that stand by them."""
