"Sound files: reading and writing, a corpus, space, and the meter."
