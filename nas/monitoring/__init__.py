"""What is seen while a search runs: screen, TensorBoard, the policy's log."""
