"""What plugins inside engines that own the memory have in common, whatever the engine."""
