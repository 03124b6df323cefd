"""The gRPC and REST interfaces of a Qdrant server over qdrant-client's local mode, with real requests and answers.

This is not a Qdrant server: nothing is indexed, stored on disk or limited.
"""
