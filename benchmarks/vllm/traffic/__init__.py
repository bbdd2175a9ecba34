"""What is asked of a server: requests that follow one another, workloads by name, scenarios by seed."""
