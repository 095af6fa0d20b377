"""What two packages or more use."""
