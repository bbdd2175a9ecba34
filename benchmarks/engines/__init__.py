"""What an engine's parts cost beside the same work done by others."""
