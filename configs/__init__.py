"""One experiment a file; the head of each gives its command, its time and its score."""
