"""What steps may use of this machine, and what they do use."""
