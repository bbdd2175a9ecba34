"""The main job on real documents: the same questions under several placement policies, side by side."""
