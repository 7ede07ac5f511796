"""Are these the weights of a trained model? A text that any of them has words for, and what it costs to fill it in."""
