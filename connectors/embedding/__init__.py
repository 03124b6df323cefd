"""The embedding engine: one model, its chunks, its vectors. Nothing here knows documents, versions or stores."""
