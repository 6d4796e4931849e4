"""Write src/sftn/cli/catalogue.json from the registries of networks, methods, images and recipes.

`python docs/catalogue.py`, after a name, an option or a description has changed; a test compares.
"""

from sftn.cli.catalogue import write

write()
