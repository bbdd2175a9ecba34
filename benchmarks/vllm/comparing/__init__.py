"""Stock vLLM at its best beside the plugin: settings chosen, runs by turns, claims and tables."""
