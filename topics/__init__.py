"""Every topic as frozen data, and their provisioning."""
