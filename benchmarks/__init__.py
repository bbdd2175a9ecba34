"""Every number the README quotes, printed by one command. Ratios within one run, never timed tests."""
