"""What people do wrong, and what they are told."""
