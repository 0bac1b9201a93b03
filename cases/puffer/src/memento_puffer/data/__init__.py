"""What Puffer publishes, read, checked, joined and made."""
