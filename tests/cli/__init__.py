"""What people see when they type commands."""
