"What is measured of a sound: mel spectrograms, descriptors, distances."
