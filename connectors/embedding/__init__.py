"""The embedding engine: one model, its chunks, its vectors. Nothing here knows of documents, versions or stores."""
