"""Generating: sequences, sampling, the scheduler, the cache and the fast paths, tools and their sandbox."""
