"""Predictors of ImageNet accuracy and speed: how they are made, what they show."""
