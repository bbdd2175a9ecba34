"""What an operator sees: metrics, a line of log a request, and a live page, all of the same counts."""
