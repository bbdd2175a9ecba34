"""What a served model's clients feel: times, ratios, and what survives."""
