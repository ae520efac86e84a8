"""What a checkpoint holds of PyTorch: modules, optimizers, random streams, the position of a DataLoader."""
