"""A trained network in the hands of somebody else: as a file with all that is needed to use it, and used from there."""
