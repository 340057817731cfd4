"""From web pages to clean image-text shards, in five stages that account for every drop. No torch."""
