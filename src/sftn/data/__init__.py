"""Images: sources by name (`sftn.data.load`), splits in memory or in files, and loaders that make batches of them."""
