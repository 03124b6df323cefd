"""A Qdrant server's gRPC and REST interfaces over qdrant-client's local mode: requests and answers really travel.

Not a Qdrant server: nothing is indexed, stored on disk or limited.
"""
