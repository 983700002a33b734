"""What a network is trained for, and how that is measured."""
