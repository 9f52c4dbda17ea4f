"""Streams: topics that are read without end. What a stream is, and what it does when its topic changes under it."""
