"""What training and inference must agree on, each thing once."""
