"""The SQL databases: the code that both share, one folder for each, and the one module that chooses between them."""
