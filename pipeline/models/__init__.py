"""Plain networks, as the guide writes them. Nothing here knows of folds, stacks or trainers."""
