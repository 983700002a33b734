"""One long training run, and a trained model as a command's argument."""
