"""The SQL databases: what both have in common, one folder for each, and the one module that chooses between them."""
