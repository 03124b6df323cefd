"""All topics as frozen data, and their provisioning."""
