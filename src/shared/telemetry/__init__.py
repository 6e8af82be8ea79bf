"""What an instance says of itself: readings of shared memory and the metrics made from them."""
